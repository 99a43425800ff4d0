"""The images that a net gets wrong, as one picture."""

import math

from PIL import Image, ImageDraw
import numpy


def draw_mistakes(images, labels, predicted):
    """Draws the misclassified images, each below its label and the predicted class.

    Args:
        images (array): uint8 array of shape (n, rows, columns).
        labels, predicted (array): Int arrays of shape (n,).

    Returns:
        ~PIL.Image.Image: The drawing.
    """
    wrong = numpy.flatnonzero(predicted != labels)
    across = max(1, min(20, math.ceil(math.sqrt(len(wrong)))))
    rows, columns = (2 * n for n in images.shape[1:])
    height, width = rows + 20, columns + 8
    sheet = Image.new('L', (across * width, max(1, math.ceil(len(wrong) / across)) * height), 255)
    draw = ImageDraw.Draw(sheet)
    for k, i in enumerate(wrong):
        left, top = k % across * width + 4, k // across * height
        draw.text((left, top + 3), f'{labels[i]}  as  {predicted[i]}', 0)
        sheet.paste(Image.fromarray(255 - images[i]).resize((columns, rows)), (left, top + 16))
    return sheet
