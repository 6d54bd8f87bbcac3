#!/usr/bin/python3
"""The table of `make coverage`: lines and branches of chardev.h, for each section, from gcovr's JSON. See coverage.sh."""
import collections
import json
import os
import sys

from mutate import HEADER, Source, read


def percent(reached, total):
    return '%5d / %5d %6.1f %%' % (reached, total, 100.0 * reached / total if total else 100.0)


def main():
    source = Source(read(HEADER))
    texts = source.text.split('\n')
    with open(sys.argv[1], encoding='utf-8') as file:
        report = json.load(file)
    lines = {}  # number -> [times reached, {branch: times}]
    for entry in (entry for part in report['files'] if os.path.basename(part['file']) == HEADER for entry in part['lines']):
        if entry.get('gcovr/noncode') or entry.get('gcovr/excluded'):
            continue
        line = lines.setdefault(entry['line_number'], [0, collections.Counter()])
        line[0] += entry['count']
        for number, branch in enumerate(entry.get('branches', [])):
            line[1][number] += branch['count']
    sections = collections.defaultdict(lambda: [0, 0, 0, 0])
    missed = os.environ.get('MISSED', '').split()
    for number, (count, branches) in sorted(lines.items()):
        name = source.section(number)
        taken = sum(1 for times in branches.values() if times)
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
