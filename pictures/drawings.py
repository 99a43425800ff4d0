"""The drawings of inference.py: what the net saw of pictures, and which images it gets wrong."""

import math
import os

from PIL import Image, ImageDraw, ImageFont, ImageOps
import numpy

CELL, EDGE = 240, 8  # width and margin of a picture's cell in a drawing


def draw_answers(shown):
    """Draws pictures above what the net saw of them and what it answered.

    Args:
        shown (list): For each picture its path, the images made of it, and the answer as
            ``inference.py`` prints it: the classes, a probability for each, and remarks.

    Returns:
        ~PIL.Image.Image: The drawing.
    """
    cells = [_draw_answer(*one) for one in shown]
    rows = [cells[i : i + 4] for i in range(0, len(cells), 4)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new('RGB', (CELL * len(rows[0]), sum(heights)), 'white')
    for i, cell in enumerate(cells):
        sheet.paste(cell, (CELL * (i % 4), sum(heights[: i // 4])))
    return sheet


def _draw_answer(path, images, answer):
    """A picture, the classes and remarks, and each image above its probability."""
    from pictures.digits import read_colours  # needs SciPy; draw_mistakes does not

    (classes, *words), inner, n = answer.split(), CELL - 2 * EDGE, len(images)
    large, small = (ImageFont.load_default(size) for size in (22, 13))
    across = min(n, 4)
    cell = Image.new('RGB', (CELL, 200 + -(-n // across) * 140), 'white')
    draw = ImageDraw.Draw(cell)
    draw.text((EDGE, EDGE), os.path.basename(path), 'dimgray', small)
    cell.paste(_fit(read_colours(path), inner, 130), (EDGE, 28))
    draw.text((EDGE, 190), classes, 'black', large, anchor='ls')
    left = EDGE + draw.textlength(classes, large) + EDGE
    draw.text((left, 190), ' '.join(words[n:]), 'black', small, anchor='ls')
    for i, (image, probability) in enumerate(zip(images, words)):
        seen = _fit(Image.fromarray(image), inner // across - 4, 112)
        left, top = EDGE + i % across * (inner // across), 200 + i // across * (seen.height + 24)
        cell.paste(seen, (left, top))
        below = left + seen.width // 2, top + seen.height + 3
        draw.text(below, probability, 'black', small, anchor='ma')
    return cell.crop((0, 0, CELL, top + seen.height + 36))


def _fit(picture, width, height):
    """A picture in a frame; it grows by a whole number, so that its pixels stay squares."""
    factor = min((width - 2) / picture.width, (height - 2) / picture.height)
    how = Image.Resampling.LANCZOS
    if factor >= 1:
        how, factor = Image.Resampling.NEAREST, int(factor)
    size = [max(1, round(n * factor)) for n in picture.size]
    return ImageOps.expand(picture.resize(size, how), 1, 'silver')


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
