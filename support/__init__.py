"""What the programs need around the nine scripts: arguments, files, reports, snapshots."""
