"""Independent command lines, and where they run: this machine, SLURM, dask."""
