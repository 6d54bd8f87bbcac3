/* The one file of tinyvm that holds the implementation of chardev.h. */
#define CHARDEV_IMPLEMENTATION
#include "chardev.h"
