/* Operations that bring a VM home, disturbed at each of their steps. */
#include <stddef.h>

#include "tests/sim/walk.h"

int
main(int argc, char **argv)
{
    return walk(&stories_home, argc > 1 ? argv[1] : NULL);
}
