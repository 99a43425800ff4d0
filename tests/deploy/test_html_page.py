"""The page to draw on, in a real browser."""

import base64
import shutil

import numpy
import pytest

from pictures.layout import Layout
from deploy.fold import fold
from deploy.html_page import to_html
from deploy.packed import PackedMLP, PackedNet
from net import BinaryMLP, QuantizedMLP
from nets import supplied

webdriver = pytest.importorskip('selenium.webdriver', reason='Selenium is not installed')


@pytest.fixture(scope='module')
def browser():
    if not (shutil.which('chromium') and shutil.which('chromedriver')):
        pytest.skip('there is no chromium with its chromedriver')
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for argument in '--headless=new', '--no-sandbox', '--window-size=900,700':
        options.add_argument(argument)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    service = webdriver.ChromeService(shutil.which('chromedriver'))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


def opened(browser, folder, *arguments):
    (folder / 'net.html').write_text(to_html(*arguments), encoding='utf-8')
    browser.get((folder / 'net.html').as_uri())
    assert browser.get_log('browser') == []
    return browser


def with_layout(net, layout):
    return PackedNet({**net.arrays, 'layout': numpy.array(layout, numpy.int32)})


def classes(browser, images):
    return browser.execute_script(
        """
        const all = bytes(arguments[0]), size = rows * columns, result = [];
        for (let i = 0; i < all.length; i += size) {
          const y = logits(all.subarray(i, i + size));
          result.push(y.indexOf(Math.max(...y)));
        }
        return result;
        """,
        base64.b64encode(images.tobytes()).decode(),
    )


def test_a_thousand_test_images(browser, mnist, tmp_path):
    net = supplied()
    opened(browser, tmp_path, net)
    images = mnist[2][:1000]
    expected = PackedMLP(net).logits(images).argmax(axis=1)
    assert classes(browser, images) == expected.tolist()


@pytest.mark.parametrize('bits', [(1, 2), (3, 1), (8, 8)])
def test_more_bits(browser, tmp_path, bits):
    numpy.random.seed(0)
    net = QuantizedMLP(35, 40, 12, 2, *bits)
    net.use_signed_pixels()
    packed = fold(net)
    images = numpy.random.randint(0, 256, (300, 5, 7), numpy.uint8)
    opened(browser, tmp_path, with_layout(packed, Layout(5, 7, 4, 4)))
    expected = PackedMLP(packed).logits(images)
    found = browser.execute_script(
        'return arguments[0].map(image => logits(Uint8Array.from(image)))',
        images.reshape(300, 35).tolist(),
    )
    numpy.testing.assert_array_equal(numpy.array(found, numpy.float32), expected)


SEVEN = [(70, 70), (140, 66), (210, 72), (170, 140), (130, 230)]
ONE = [(150, 50), (140, 140), (130, 235)]
ZERO = [(140, 50), (85, 90), (75, 150), (100, 220), (150, 230), (200, 190), (205, 110), (140, 50)]


def draw(browser, points):
    actions = webdriver.ActionChains(browser, duration=20)
    canvas = browser.find_element('id', 'drawing')
    for k, (x, y) in enumerate(points):
        actions.move_to_element_with_offset(canvas, x - 140, y - 140)
        if k == 0:
            actions.click_and_hold()
    actions.release().pause(0.2).perform()
    return browser.find_element('id', 'answers').get_attribute('data-answer')


@pytest.mark.parametrize('digit, points', [('7', SEVEN), ('1', ONE), ('0', ZERO)])
def test_a_stroke_gives_the_digit(browser, tmp_path, digit, points):
    opened(browser, tmp_path, supplied())
    answers = browser.find_element('id', 'answers')
    assert answers.get_attribute('data-answer') == '-1'
    assert draw(browser, points) == digit
    assert answers.text.count('%') == 10
    browser.find_element('id', 'clear').click()
    assert answers.get_attribute('data-answer') == '-1'


@pytest.mark.parametrize('layout', [Layout(dark=1), Layout(transposed=1), Layout(40, 20, 36, 18)])
def test_a_drawing_is_placed_as_the_training_images_are(browser, tmp_path, layout):
    net = fold(BinaryMLP(layout.rows * layout.columns, 8, 3))
    opened(browser, tmp_path, with_layout(net, layout))
    draw(browser, [(100, 40), (100, 240)])
    image = numpy.array(browser.execute_script('return Array.from(prepare())'), numpy.uint8)
    image = image.reshape(layout[:2])
    image = 255 - image if layout.dark else image
    image = image.T if layout.transposed else image
    used = [numpy.flatnonzero(image.max(axis=axis) > 100) for axis in (1, 0)]
    assert len(used[0]) == layout.height and len(used[1]) <= 4
    assert all(abs(u.mean() - side / 2) <= 1 for u, side in zip(used, image.shape))


def test_examples_by_mouse_and_keyboard(browser, mnist, tmp_path):
    examples = [mnist[2][(mnist[3] == k).argmax()] for k in range(10)]
    net = supplied()
    opened(browser, tmp_path, net, examples)
    expected = PackedMLP(net).logits(numpy.stack(examples)).argmax(axis=1)
    answers = browser.find_element('id', 'answers')
    buttons = browser.find_elements('class name', 'example')
    assert len(buttons) == 10
    buttons[3].click()
    assert answers.get_attribute('data-answer') == str(expected[3])
    webdriver.ActionChains(browser).send_keys('6').perform()
    assert answers.get_attribute('data-answer') == str(expected[6])
    webdriver.ActionChains(browser).send_keys('\ue00c').perform()  # Escape
    assert answers.get_attribute('data-answer') == '-1'


def test_it_fits_a_phone(browser, tmp_path):
    opened(browser, tmp_path, supplied())
    phone = {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True}
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', phone)
    try:
        assert browser.execute_script('return document.documentElement.scrollWidth') <= 360
    finally:
        browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
