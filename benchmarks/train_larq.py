"""Contender: Larq on TensorFlow, trained by Keras' own loop, which compiles it."""

import itertools
import os
import sys

os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
import larq as lq
import numpy
import tensorflow as tf

from worker import initial_weights, orders, read_mnist, serve

threads, sizes, batch = int(sys.argv[1]), list(map(int, sys.argv[2].split('-'))), int(sys.argv[3])
tf.config.threading.set_intra_op_parallelism_threads(threads)
tf.config.threading.set_inter_op_parallelism_threads(threads)


def clip():
    return lq.constraints.WeightClip(1.0)


model = tf.keras.Sequential()
for i, W in enumerate(initial_weights(sizes)):
    model.add(
        lq.layers.QuantDense(
            W.shape[0],
            input_quantizer='ste_sign' if i else None,
            kernel_quantizer='ste_sign',
            kernel_initializer=tf.constant_initializer(W.T),
            kernel_constraint=clip(),
            bias_constraint=clip(),
        )
    )
    model.add(
        tf.keras.layers.BatchNormalization(
            momentum=0.9, epsilon=2e-5, gamma_constraint=clip(), beta_constraint=clip()
        )
    )
model.compile(
    tf.keras.optimizers.Adam(0.001),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)

images, labels = read_mnist()
order = itertools.chain.from_iterable(orders(len(labels)))


class Last(tf.keras.callbacks.Callback):
    """Keras reports the mean loss since the epoch began; this takes that of the last 100 steps."""

    def on_train_batch_end(self, step, logs):
        self.total = logs['loss'] * (step + 1)
        if step + 1 == max(self.params['steps'] - 100, 0):
            self.before = self.total


def train(steps):
    index = numpy.fromiter(itertools.islice(order, steps * batch), numpy.int64)
    last = Last()
    last.before = 0.0
    model.fit(
        images[index], labels[index], batch, epochs=1, shuffle=False, verbose=0, callbacks=[last]
    )
    return (last.total - last.before) / min(steps, 100)


serve(train)
