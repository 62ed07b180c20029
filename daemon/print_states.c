#include "daemon/states.h"

int
main(void)
{
    states_print(stdout);
    return fflush(stdout) == 0 ? 0 : 1;
}
