#!/usr/bin/python3
"""The table of `make coverage`: lines and branches of chardev.h, for each section, from gcov's counts of each object (the arguments,
*.gcda). What several objects have counted is added up. See coverage.sh."""
import collections
import json
import os
import re
import subprocess
import sys

from mutate import HEADER, Source, option, read

EXCLUDED = re.compile(r'\bGCOV_EXCL_(BR_)?(LINE|START|STOP)\b')
NO_CODE = re.compile(r'[\s{};]*(else|break|continue)?[\s{};]*$')


def excluded_lines(texts):
    """Numbers of lines that don't count, and of those whose branches don't."""
    lines, branches, since = set(), set(), {}
    for number, text in enumerate(texts, 1):
        for kind, what in EXCLUDED.findall(text):
            if what == 'START':
                since[kind] = number
            elif what == 'STOP' and kind not in since:
                sys.exit('coverage: %s:%d: this ends nothing' % (HEADER, number))
            else:
                (branches if kind else lines).update(range(since.pop(kind) if what == 'STOP' else number, number + 1))
    if since:
        sys.exit('coverage: %s:%d: this is never ended' % (HEADER, max(since.values())))
    return lines, branches


def read_counts(path, lines):
    """Adds what one object has counted: number -> [times reached, {how many branches: [times of each]}]."""
    done = subprocess.run(['gcov', '--json-format', '--stdout', '--branch-probabilities', path], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not done.stdout.strip():
        sys.exit('coverage: gcov %s: %s' % (path, done.stderr))
    here = {}
    for report in done.stdout.splitlines():
        for part in json.loads(report)['files']:
            if os.path.basename(part['file']) != HEADER:
                continue
            for entry in part['lines']:
                line = here.setdefault(entry['line_number'], [0, []])
                line[0] += entry['count']
                line[1] += [branch['count'] for branch in entry['branches']]
    for number, (count, branches) in here.items():
        line = lines.setdefault(number, [0, {}])
        line[0] += count
        times = line[1].setdefault(len(branches), [0] * len(branches))
        for at, taken in enumerate(branches):
            times[at] += taken


def best(variants):
    """Of the branches that a line has in several flavours, those of the one that was tried most."""
    return max(variants.values(), key=lambda times: (sum(map(bool, times)) / len(times) if times else 0, len(times)))


def write_for_gcovr(path, lines):
    entries = [{'line_number': number, 'count': count, 'gcovr/noncode': False,
                'branches': [{'count': times, 'fallthrough': False, 'throw': False} for times in branches]}
               for number, (count, branches) in sorted(lines.items())]
    with open(path, 'w', encoding='utf-8') as file:
        json.dump({'gcovr/format_version': '0.3', 'files': [{'file': HEADER, 'functions': [], 'lines': entries}]}, file)


def percent(reached, total):
    return 100.0 * reached / total if total else 100.0


def ratio(reached, total):
    return '%5d / %5d %6.1f %%' % (reached, total, percent(reached, total))


def main():
    source = Source(read(HEADER))
    texts = source.text.split('\n')
    no_lines, no_branches = excluded_lines(texts)
    counts, lines = {}, {}
    for path in sys.argv[1:]:
        read_counts(path, counts)
    for number, (count, variants) in counts.items():
        if number not in no_lines and not NO_CODE.match(texts[number - 1]):
            lines[number] = (count, best(variants) if number not in no_branches else [])
    write_for_gcovr('build/coverage/merged.json', lines)
    sections = collections.defaultdict(lambda: [0, 0, 0, 0])
    missed = option('MISSED').split()
    for number, (count, branches) in sorted(lines.items()):
        name = source.section(number)
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
            print('%-18s %24s %24s' % (name, ratio(*sections[name][:2]), ratio(*sections[name][2:])))
    total, failed = sections['total'], 0
    for what, reached, least in (('lines', percent(*total[:2]), option('MIN_LINES')), ('branches', percent(*total[2:]), option('MIN_BRANCHES'))):
        if least and reached < float(least):
            print('coverage: FAILED: %.2f %% of the %s, at least %s %% are wanted' % (reached, what, least))
            failed = 1
    sys.exit(failed)


main()
