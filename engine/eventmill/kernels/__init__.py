"""The kernels as Python sees them: anything that exports the Arrow C data interface in, pyarrow objects out."""
