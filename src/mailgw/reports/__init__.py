"""Reports that machines send about mail: recognised and read."""
