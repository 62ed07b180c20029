#include "client/completion.h"

int
main(void)
{
    completion_print(stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}
