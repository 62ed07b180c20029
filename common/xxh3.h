/*
 * XXH3 in the variant that suits the processor, where the library was built with a
 * choice; the same hashes in any case. Otherwise as <xxhash.h>.
 */
#ifndef COMMON_XXH3_H
#define COMMON_XXH3_H

#ifdef HAVE_XXH3_DISPATCH
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#endif
