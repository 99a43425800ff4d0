"""What all programs share: files, saved nets, and how a program ends."""
