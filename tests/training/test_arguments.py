"""The options of a training: each stands in the parser, and the documentation says the same."""

import os
import re

import pytest

from helpers import ROOT
from data import MNIST
from training.arguments import PAPER, make_parser, parse_arguments


def rows():
    """The rows of the tables of options in docs/usage.md: option strings, with what follows them,
    and the cells."""
    with open(f'{ROOT}/docs/usage.md', encoding='utf-8') as f:
        section = f.read().split('## Options of the training')[1].split('\n## ')[0]
    for line in section.splitlines():
        if line.startswith('| `-'):
            first, *cells = [cell.strip() for cell in line.strip('|').split('|')]
            yield [words.partition(' ')[::2] for words in re.findall('`(-.*?)`', first)], cells


def shown(value):
    """A default as the documentation shows it."""
    if value is None or isinstance(value, bool):
        return 'set' if value else ''
    if isinstance(value, str):
        return 'MNIST' if value == MNIST else value
    return f'{value:g}'.replace('e-0', 'e-')


def test_the_documentation_has_every_option_and_its_default():
    documented = {name: after for names, _ in rows() for name, after in names}
    for action in make_parser()._actions:
        if action.dest in ('help', 'recipe'):
            continue
        after = action.metavar or ''
        if action.choices:
            after = '{' + ','.join(action.choices) + '}'
        if action.nargs == '?':
            after = f'[{after}]'
        assert [documented.pop(name) for name in action.option_strings][0] == after, action.dest
    assert not documented

    for names, cells in rows():
        dests = [name[2:].replace('-', '_') for name, _ in names if name.startswith('--')]
        defaults = {shown(make_parser().get_default(dest)) for dest in dests}
        assert set(cells[0].replace('`', '').split(', ')) == defaults, names
        if dests[0] in PAPER and len(cells) == 3:
            paper = ', '.join(shown(PAPER[dest]) for dest in dests)
            assert cells[1].strip('`') == paper, names


def test_explicit_options_override_the_recipe_wherever_they_stand():
    for words in ['--recipe', 'paper', '--unit', '1000'], ['--unit=1000', '--recipe=paper']:
        args = parse_arguments(words)  # 1000 is also the default without the recipe
        assert (args.unit, args.layer, args.loss, args.glorot) == (1000, 3, 'hinge', True)
    assert parse_arguments([]).unit == 1000 and parse_arguments([]).layer == 2


@pytest.mark.parametrize(
    'words, bits', [([], 1), (['--net', 'quantized'], 4), (['--net', 'float'], 32)]
)
def test_bits(words, bits):
    args = parse_arguments(words)
    assert (args.weight_bits, args.activation_bits) == (bits, bits)


def test_help_shows_the_defaults_and_no_path_of_the_machine(capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '1000')
    with pytest.raises(SystemExit):
        parse_arguments(['--help'])
    text = capsys.readouterr().out
    for words in (
        'kind of net (default: binary)',
        'a data set: IDX files, or pictures by class (default: MNIST)',
        'dropout (default: 0)',
    ):
        assert words in text
    assert ROOT not in text and 'None' not in text and 'False' not in text


def test_a_path_may_begin_with_the_home_folder(monkeypatch, tmp_path):
    for name in 'HOME', 'USERPROFILE':
        monkeypatch.setenv(name, str(tmp_path))
    for name in 'data', 'out', 'initmodel', 'resume':
        value = getattr(parse_arguments([f'--{name}=~/x']), name)
        assert os.path.normpath(value) == str(tmp_path / 'x')


@pytest.mark.parametrize('name', ['data', 'out', 'initmodel', 'resume'])
def test_an_empty_path_is_named(name, capsys):
    with pytest.raises(SystemExit):
        parse_arguments([f'--{name}', ''])
    (line,) = capsys.readouterr().err.splitlines()
    assert f'argument --{name}' in line and line.endswith("must be a path, not ''")
