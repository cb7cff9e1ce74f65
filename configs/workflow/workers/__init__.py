"""Who does the units: processes of this machine, a Ray cluster, Slurm jobs."""
