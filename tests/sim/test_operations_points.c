/* Operations that use a recovery point beside the replication, disturbed at each of their
 * steps. */
#include <stddef.h>

#include "tests/sim/walk.h"

int
main(int argc, char **argv)
{
    return walk(&stories_points, argc > 1 ? argv[1] : NULL);
}
