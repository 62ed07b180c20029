/* Operations that protect a VM and look after its replica, disturbed at each of their
 * steps. */
#include <stddef.h>

#include "tests/sim/walk.h"

int
main(int argc, char **argv)
{
    return walk(&stories_care, argc > 1 ? argv[1] : NULL);
}
