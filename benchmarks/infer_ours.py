"""Contender: this project's own inference, of a float model or a packed one."""

import sys

from worker import read_test_images, serve

sys.path.insert(0, sys.path[0] + '/..')
import inference

model, _ = inference.load(sys.argv[1], -1)
images = read_test_images()


def classify(size):
    classes = []
    chosen = images[:1000] if size < 10 else images
    for i in range(0, len(chosen), size):
        classes.append(model.logits(chosen[i : i + size]).argmax(axis=1))
    return inference.numpy.concatenate(classes)


serve(classify)
