"""The page to draw on, in a real browser."""

import base64
import io
import shutil

import numpy
import pytest
from PIL import Image

from pictures.layout import Layout
from deploy.fold import fold
from deploy.html_page import to_html
from deploy.packed import PackedMLP, PackedNet
from inference import describe_answers
from net import BinaryMLP, QuantizedMLP
from nets import supplied

webdriver = pytest.importorskip('selenium.webdriver', reason='Selenium is not installed')
MOUSE = '--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4'
DESKTOP, *PHONES = (1280, 800), (390, 844), (320, 568), (844, 390)


class Page:
    """A page in a browser, and a hand that draws on it. Places are in hundredths of the box."""

    def __init__(self, browser, folder):
        self.browser, self.file = browser, folder / 'net.html'
        self.run = browser.execute_script

    def cdp(self, command, **arguments):
        return self.browser.execute_cdp_cmd(command, arguments)

    def open(self, net, examples=(), screen=(800, 420)):
        self.file.write_text(to_html(net, examples), encoding='utf-8')
        self.media()
        self.resize(*screen)
        self.browser.get(self.file.as_uri())

    def resize(self, width, height, **options):
        options = {'deviceScaleFactor': 1, 'mobile': False, **options}
        self.cdp('Emulation.setDeviceMetricsOverride', width=width, height=height, **options)

    def media(self, **features):
        features = [{'name': k.replace('_', '-'), 'value': v} for k, v in features.items()]
        self.cdp('Emulation.setEmulatedMedia', features=features)

    def at(self, x, y):
        a, e, f = self.run('const m = drawing.getScreenCTM(); return [m.a, m.e, m.f]')
        return {'x': a * x + e, 'y': a * y + f}

    def mouse(self, what, point, button='left', buttons=1, **more):
        point = {**self.at(*point), 'button': button, 'buttons': buttons, 'clickCount': 1, **more}
        self.cdp('Input.dispatchMouseEvent', type=f'mouse{what}', **point)

    def touch(self, what, *points):
        points = [{**self.at(*point), 'id': i} for i, point in enumerate(points)]
        self.cdp('Input.dispatchTouchEvent', type=f'touch{what}', touchPoints=points)

    def draw(self, points, size=1, right=0, **more):
        """Draws a stroke, smaller or further to the right."""
        points = [(50 + size * (x - 50) + right, 50 + size * (y - 50)) for x, y in points]
        self.mouse('Pressed', points[0], **more)
        for point in points[1:]:
            self.mouse('Moved', point, **more)
        self.mouse('Released', points[-1], **{**more, 'buttons': 0})

    @property
    def answer(self):
        """The answer in large letters, and the sentence beside it."""
        return self.run('return Array.from(find("output").children, e => e.textContent)')

    @property
    def strokes(self):
        return self.run('return strokes.length')

    def ink(self, canvas):
        url = self.run('return find(arguments[0]).toDataURL()', canvas)
        picture = Image.open(io.BytesIO(base64.b64decode(url.partition(',')[2])))
        return numpy.asarray(picture)[..., 3]

    def key(self, key):
        webdriver.ActionChains(self.browser).send_keys(key).perform()


@pytest.fixture(scope='module')
def browser():
    if not (shutil.which('chromium') and shutil.which('chromedriver')):
        pytest.skip('there is no chromium with its chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for argument in '--headless=new', '--no-sandbox', MOUSE:
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(shutil.which('chromedriver'))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, tmp_path):
    yield Page(browser, tmp_path)
    assert [line for line in browser.get_log('browser') if line['level'] == 'SEVERE'] == []


def with_layout(net, layout):
    return PackedNet({**net.arrays, 'layout': numpy.array(layout, numpy.int32)})


def test_a_thousand_test_images(page, mnist):
    """The classes are those of the packed net, and the page doubts what inference.py doubts."""
    page.open(supplied())
    images = mnist[2][:1000]
    found = page.run(
        """
        const all = bytes(arguments[0]), size = rows * columns, result = [];
        for (let i = 0; i < all.length; i += size)
          result.push(describe([read(all.subarray(i, i + size))]));
        return result;
        """,
        base64.b64encode(images.tobytes()).decode(),
    )
    logits = PackedMLP(supplied()).logits(images)
    assert [answer for answer, _ in found] == list(map(str, logits.argmax(axis=1)))
    expected = [' '.join(describe_answers(y[None], True)) for y in logits]
    doubts = [words.partition('unsure')[2] for _, words in found]
    assert doubts == [words.partition('unsure')[2].rstrip(')') for words in expected]
    assert 5 < sum(map(bool, doubts)) < 100


def test_probabilities_that_are_not_calibrated_raise_no_doubt(page):
    arrays = {name: a for name, a in supplied().arrays.items() if name != 'temperature'}
    page.open(PackedNet(arrays))
    assert page.run('return read(new Uint8Array(rows * columns)).unsure') is False


@pytest.mark.parametrize('bits', [(1, 2), (3, 1), (8, 8)])
def test_more_bits(page, bits):
    numpy.random.seed(0)
    net = QuantizedMLP(35, 40, 12, 2, *bits)
    net.use_signed_pixels()
    packed = fold(net)
    images = numpy.random.randint(0, 256, (300, 5, 7), numpy.uint8)
    page.open(with_layout(packed, Layout(5, 7, 4, 4)))
    expected = PackedMLP(packed).logits(images)
    found = page.run(
        'return arguments[0].map(image => logits(Uint8Array.from(image)))',
        images.reshape(300, 35).tolist(),
    )
    numpy.testing.assert_array_equal(numpy.array(found, numpy.float32), expected)


SEVEN = [(25, 27), (75, 25), (48, 84)]
ONE = [(54, 18), (50, 50), (46, 84)]
ZERO = [(50, 18), (30, 32), (27, 54), (36, 79), (54, 82), (71, 68), (73, 39), (50, 18)]
DIGITS = [('7', SEVEN), ('1', ONE), ('0', ZERO)]


@pytest.mark.parametrize('digit, points', DIGITS)
def test_a_stroke_gives_the_digit(page, digit, points):
    """Also if it is tiny, or half of it lies outside the box."""
    page.open(supplied())
    assert page.answer == ['', 'Draw a digit']
    for size, right in (1, 0), (0.25, 0), (0.15, -40), (1, 45):
        page.draw(points, size, right)
        answer, words = page.answer
        assert answer == digit and float(words.split('\xa0%')[0]) > 40
        page.browser.find_element('id', 'clear').click()
        assert page.answer == ['', 'Draw a digit']


def test_digits_side_by_side(page):
    page.open(supplied())
    for (_, points), right in zip(DIGITS, (-30, 0, 30)):
        page.draw(points, 0.4, right)
    page.draw([(97, 50)])  # a speck
    answer, words = page.answer
    assert answer == '710' and words.count('%') == 3
    assert len(page.browser.find_elements('class name', 'digit')) == 3
    page.draw([(10, 50), (90, 52)])
    assert page.answer == ['', 'Too wide for a digit']


def test_one_pointer_draws_at_a_time(page):
    page.open(supplied())
    page.draw(ONE, button='right', buttons=2)
    page.touch('Start', (130, 90))  # beside the box
    page.touch('Start', (130, 90), (20, 80))
    page.touch('End')
    assert page.strokes == 0
    page.touch('Start', (50, 20))
    page.touch('Start', (50, 20), (20, 80))  # a second finger
    page.touch('Move', (50, 80), (30, 80))
    page.touch('Cancel')
    page.draw([(80, 50)], pointerType='pen')  # a tap
    assert page.strokes == 2 and page.run('return strokes[0].every(([x]) => x > 49 && x < 51)')
    assert page.run('return find("#ink").getBBox().width') > 25  # the dot is in the path
    page.key('\ue00c')  # Escape
    page.touch('Start', (90, 90))  # a palm rests
    page.draw(SEVEN, pointerType='pen')
    page.touch('Move', (80, 90))
    page.touch('End')
    assert page.answer[0] == '7' and page.strokes == 1


def test_the_stroke_ends_if_its_release_is_lost(page):
    page.open(supplied())
    state = 'return [strokes.flat().length, find("output").ariaBusy]'
    for lose in (
        'drawing.dispatchEvent(new PointerEvent("pointermove", {pointerId: pointer}))',
        'drawing.releasePointerCapture(pointer)',
        'restart()',
    ):
        page.mouse('Pressed', (20, 20))
        page.mouse('Moved', (20, 60))
        assert page.run(state)[1] == 'true'
        page.run(lose)
        points = page.run('return strokes.flat().length')
        page.mouse('Moved', (80, 80))
        assert page.run(state) == [points, 'false']
        page.mouse('Released', (80, 80), buttons=0)


@pytest.mark.parametrize(
    'layout', [Layout(dark=1), Layout(40, 20, 36, 18), Layout(20, 40, 18, 36, transposed=1)]
)
def test_a_drawing_is_placed_as_the_training_images_are(page, layout):
    page.open(with_layout(fold(BinaryMLP(layout.rows * layout.columns, 8, 3)), layout))
    page.draw([(40, 20), (40, 80), (44, 80)])
    image = numpy.array(page.run('return Array.from(place(strokes))'), numpy.uint8)
    image = image.reshape(layout[:2])
    image = 255 - image if layout.dark else image
    image = image.T if layout.transposed else image
    used = [numpy.flatnonzero(image.max(axis=axis) > 100) for axis in (1, 0)]
    assert abs(len(used[0]) - max(layout.height, layout.width)) <= 1 and len(used[1]) <= 5
    assert all(abs(u.mean() - side / 2) <= 1 for u, side in zip(used, image.shape))
    numpy.testing.assert_array_equal(page.ink('figure canvas'), image)


@pytest.mark.parametrize('n_in, classes', [(784, 47), (35, 3)])
def test_other_nets(page, n_in, classes):
    page.open(fold(QuantizedMLP(n_in, 8, classes, 1, 2, 2)))
    page.draw(SEVEN, 0.4, -25)
    page.draw(SEVEN, 0.4, 25)
    assert page.answer[0].count('-') == (classes > 10)


def test_examples_by_mouse_and_keyboard(page, mnist):
    examples = [mnist[2][(mnist[3] == k).argmax()] for k in range(10)]
    page.open(supplied(), examples)
    expected = PackedMLP(supplied()).logits(numpy.stack(examples)).argmax(axis=1)
    buttons = page.browser.find_elements('css selector', 'nav button')
    assert [button.accessible_name for button in buttons] == [f'Test image {k}' for k in range(10)]
    buttons[3].click()
    assert page.answer[0] == str(expected[3])
    assert (page.ink('#example') == examples[3]).all()
    page.key('6')
    assert page.answer[0] == str(expected[6])
    page.draw(ONE)
    assert page.answer[0] == '1' and not page.ink('#example').any()


def test_everything_is_on_one_screen(page):
    page.open(supplied(), 10 * [numpy.zeros((28, 28), numpy.uint8)], DESKTOP)
    assert page.browser.find_element('id', 'hint').is_displayed()
    page.draw(ONE, 0.5, -20)
    page.draw(SEVEN, 0.5, 20)
    answer = page.answer
    for screen in DESKTOP, *PHONES:
        phone = screen != DESKTOP
        page.resize(*screen, mobile=phone)
        if phone:
            page.cdp('Emulation.setTouchEmulationEnabled', enabled=True)
        size = page.run('return [find("html").scrollWidth, find("html").scrollHeight]')
        assert size == list(screen)
        for part in 'output', '#clear', '#drawing', '#ink', '#chart', 'nav', 'small':
            left, top, right, bottom = page.run(
                'const {left, top, right, bottom} = find(arguments[0]).getBoundingClientRect();'
                'return [left, top, right, bottom]',
                part,
            )
            assert 0 <= left < right <= screen[0] and 0 <= top < bottom <= screen[1], part
        assert page.browser.find_element('tag name', 'b').size['height'] >= 48
        assert page.browser.find_element('id', 'keys').is_displayed() != phone
        assert page.answer == answer and not page.browser.find_element('id', 'hint').is_displayed()
    page.cdp('Emulation.setTouchEmulationEnabled', enabled=False)


def test_colours_follow_the_scheme(page):
    page.open(supplied())
    page.draw(SEVEN)
    assert page.answer[0] == '7'
    for scheme, forced in ('light', 'none'), ('dark', 'none'), ('dark', 'active'):
        page.media(prefers_color_scheme=scheme, forced_colors=forced)
        picture = Image.open(io.BytesIO(page.browser.get_screenshot_as_png())).convert('L')
        ground = picture.getpixel((2, 2))
        assert ground > 230 if scheme == 'light' else ground < 30
        for part in '#ink', '.best', '.digit span', '.digit canvas':
            element = page.browser.find_element('css selector', part).rect
            left, top, width, height = (round(element[k]) for k in ('x', 'y', 'width', 'height'))
            part = numpy.asarray(picture.crop((left, top, left + width, top + height)), int)
            assert abs(part - ground).max() > 30


def test_the_picture_in_the_readme(page, mnist):
    """Makes page.png in its folder: ``pytest -k readme --basetemp=FOLDER``."""
    examples = [mnist[2][(mnist[3] == k).argmax()] for k in range(10)]
    page.open(supplied(), examples)
    page.resize(800, 420, deviceScaleFactor=2)
    page.draw(SEVEN)
    assert page.answer[0] == '7'
    page.browser.save_screenshot(str(page.file.with_name('page.png')))
