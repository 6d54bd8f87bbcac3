#!/usr/bin/python3
"""The table of `make coverage`: lines and branches of chardev.h, for each section, from gcovr's JSON of each object. See coverage.sh."""
import collections
import json
import os
import sys

from mutate import HEADER, Source, read


def percent(reached, total):
    return '%5d / %5d %6.1f %%' % (reached, total, 100.0 * reached / total if total else 100.0)


def read_counts(path, lines):
    """Adds what one object has counted: number -> [times reached, {how many branches: [times of each]}]."""
    with open(path, encoding='utf-8') as file:
        report = json.load(file)
    for part in report['files']:
        part['functions'] = []
        for entry in part['lines'] if os.path.basename(part['file']) == HEADER else []:
            if entry.get('gcovr/noncode') or entry.get('gcovr/excluded'):
                continue
            line = lines.setdefault(entry['line_number'], [0, {}])
            line[0] += entry['count']
            branches = entry.get('branches', [])
            times = line[1].setdefault(len(branches), [0] * len(branches))
            for number, branch in enumerate(branches):
                times[number] += branch['count']
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(report, file)  # without functions, for gcovr's HTML


def main():
    source = Source(read(HEADER))
    texts = source.text.split('\n')
    lines = {}
    for path in sys.argv[1:]:
        read_counts(path, lines)
    sections = collections.defaultdict(lambda: [0, 0, 0, 0])
    missed = os.environ.get('MISSED', '').split()
    for number, (count, variants) in sorted(lines.items()):
        name = source.section(number)
        branches = max(variants.values(), key=lambda times: (sum(map(bool, times)) / len(times) if times else 0, len(times)))
        taken = sum(map(bool, branches))
        for row in (sections[name], sections['total']):
            row[0] += count > 0
            row[1] += 1
            row[2] += taken
            row[3] += len(branches)
        if (name in missed or 'all' in missed) and (not count or taken < len(branches)):
            what = 'not reached' if not count else '%d of %d branches' % (taken, len(branches))
            print('%s:%d: %s: %s: %s' % (HEADER, number, name, what, texts[number - 1].strip()))
    print('%-18s %24s %24s' % ('section', 'lines', 'branches'))
    for name in list(dict.fromkeys(name for _, name in source.sections)) + ['total']:
        if sections[name][1]:
            print('%-18s %24s %24s' % (name, percent(*sections[name][:2]), percent(*sections[name][2:])))


main()
