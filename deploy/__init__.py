"""The packed model: what remains of a trained net when it only has to answer."""
