"""What train_mnist.py alone needs: arguments, recipe, reports, snapshots, several processes."""
