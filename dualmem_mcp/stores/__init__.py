"""Where data lies: the encrypted database, object folders and buckets. SQL lives here and nowhere else."""
