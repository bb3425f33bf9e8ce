# Only C code uses this module.
