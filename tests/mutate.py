#!/usr/bin/python3
"""Whether the tests bite: puts one small fault at a time into chardev.h and runs the tests that reach the place.

    make mutate                        60 faults, chosen at random among all
    make mutate SECTION=be_mux N=100   in one section (or several: SECTION='core front'), N=all for every fault there
    make mutate EACH=25 N=600          N in all, EACH in each section at least (or all that a section has)
    make mutate FUNCTION=chr__x N=all  in one function (or several)
    make mutate SEED=...               the same seed chooses the same faults, while chardev.h is the same
    make mutate MIN=85                 ends with a status other than 0 if fewer per cent are caught
    make mutate MUTANT=1a2b3c4d        that one again: says what each test does (several are separated by spaces)
    make mutate LIST=1 SECTION=...     only lists them

Faults: a comparison, a boundary, a constant, an operator or a negation is changed, a condition or a part of one is dropped, a
statement is dropped, arguments are swapped, a function returns early or with another value. What isn't compiled on this machine,
what doesn't compile, what gives the same object code and what stands in a line with GCOV_EXCL_LINE, or between GCOV_EXCL_START and
GCOV_EXCL_STOP, is no fault. The others are caught
if a test fails, crashes or hangs, twice, that passes without the fault. Survivors are printed with their difference, and stand in build/mutate/survivors/SECTION.

Which tests reach which line is found out once and kept in build/mutate/map: each single test runs under gcc's
-fsanitize-coverage. When chardev.h changes, the map's lines are moved along; when a test program changes, its tests run once
more. REMAP=1 makes all of it anew. The implementation with a fault in it is compiled by tcc in a tenth of a second and linked with
the test programs' objects. The tests of a line run one by one, those first that reach little else, until one fails, for at most
BUDGET=30 seconds a fault (their time without it); JOBS=2 faults are tried side by side.

tests/mutate_equivalent lists faults that change nothing that a user could see: `FUNCTION: LINE => LINE WITH THE FAULT`, and in the
next line, indented, why.
"""
import collections
import concurrent.futures
import glob
import hashlib
import json
import math
import os
import random
import re
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time

HEADER = 'chardev.h'
DIR = 'build/mutate'
EQUIVALENT = 'tests/mutate_equivalent'
TCC_LIB = glob.glob('/usr/lib/tcc/libtcc1.a') + glob.glob('/usr/lib/*/tcc/libtcc1.a')
DEFINES = ['-D_GNU_SOURCE', '-DCHARDEV_THREADS']
MOST_TESTS = 400  # for one fault


def option(name, default=''):
    return os.environ.get(name) or default


def fail(text):
    sys.exit('mutate: ' + text)


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w', encoding='utf-8') as file:
        file.write(text)


def digest(*texts):
    return hashlib.sha1('\0'.join(texts).encode()).hexdigest()


def run(*command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace', **more)
    if done.returncode != 0:
        raise RuntimeError(' '.join(command) + '\n' + done.stdout + done.stderr)
    return done.stdout


# ---- the source: sections, functions, tokens ---------------------------------------------------------------------------------

TOKEN = re.compile(r'''"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[A-Za-z_]\w*|0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*'''
                   r'''|<<=|>>=|\.\.\.|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[^\s\w]''')
COMMENT = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'|^[ \t]*#(?:\\\n|/\*.*?\*/|[^\n])*', re.S | re.M)
WORD = re.compile(r'[A-Za-z_]\w*$')
NUMBER = re.compile(r'(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)$')
CONTROL = {'if', 'for', 'while', 'switch'}
TYPES = {'const', 'volatile', 'struct', 'union', 'enum', 'unsigned', 'signed', 'int', 'char', 'long', 'short', 'void', 'static', 'double',
         'float', 'extern', 'register', 'FILE', 'socklen_t'}
NO_STATEMENT = {'return', 'goto', 'case', 'default', 'else', 'do', 'if', 'for', 'while', 'switch', 'sizeof'} | TYPES

SYMMETRIC = {'strcmp', 'strncmp', 'memcmp', 'chr__min', 'chr__max', 'chr__earlier'}  # in their first two arguments, as far as they are asked

ENDS = {'buffers   what stands': 'making and unmaking', 'buffers': '', 'layer_box': '', 'com_port': 'negotiation'}

Token = collections.namedtuple('Token', 'text start end')
Function = collections.namedtuple('Function', 'name type first last')  # tokens from { to }


def blank(match):
    text = match.group()
    return text if text[0] in '"\'' else re.sub(r'[^\n]', ' ', text)


class Source:
    def __init__(self, text):
        self.text = text
        self.starts = [0] + [match.end() for match in re.finditer('\n', text)]
        self.tokens = [Token(match.group(), match.start(), match.end()) for match in TOKEN.finditer(COMMENT.sub(blank, text))]
        self.match = {}
        self.functions = []
        self.find_functions()
        self.find_sections()

    def line(self, at):
        """The number of the line of an offset, from 1."""
        low, high = 0, len(self.starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.starts[middle] <= at else (low, middle)
        return low + 1

    def find_functions(self):
        stack, first = [], None
        for at, token in enumerate(self.tokens):
            if token.text in '([{' and len(token.text) == 1:
                if token.text == '{' and not stack and at and self.tokens[at - 1].text == ')':
                    first = at
                stack.append(at)
            elif token.text in ')]}' and stack:
                if token.text == '}' and self.text[token.start - 1] == '\n':
                    del stack[1:]
                self.match[at] = stack[-1]
                self.match[stack.pop()] = at
                if not stack and first is not None and token.text == '}':
                    self.add_function(first, at)
                    first = None

    def add_function(self, first, last):
        opened = self.match.get(first - 1)
        if opened is None or not WORD.match(self.tokens[opened - 1].text):
            return
        kind, at = [], opened - 2
        while at >= 0 and (WORD.match(self.tokens[at].text) or self.tokens[at].text == '*'):
            kind.insert(0, self.tokens[at].text)
            at -= 1
        self.functions.append(Function(self.tokens[opened - 1].text, kind, first, last))

    def find_sections(self):
        """Where each section begins, as its banner says. One inside another goes on to the next that is named, or to a banner of ENDS."""
        self.sections, around, end = [], None, None
        started = self.line(self.text.index('\n * >>platform'))
        for number, line in enumerate(self.text.split('\n'), 1):
            match = re.match(r'( \* |/\* -- )(>>(\w+))?', line)
            if not match or number < started:
                continue
            if match.group(3):
                ends = [text for start, text in ENDS.items() if line[match.start(3):].startswith(start)]
                end = ends[0] if ends else None
                around = around if ends else match.group(3)
                self.sections.append((number, match.group(3)))
            elif end is not None and line.startswith('/* -- ' + end):
                self.sections.append((number, around))
                end = None

    def section(self, line):
        found = 'platform'
        for start, name in self.sections:
            if start > line:
                break
            found = name
        return found


# ---- faults --------------------------------------------------------------------------------------------------------------------

SWAPPED = {'<': ['<=', '>='], '<=': ['<', '>'], '>': ['>=', '<='], '>=': ['>', '<'], '==': ['!='], '!=': ['=='], '&&': ['||'], '||': ['&&'],
           '<<': ['>>'], '>>': ['<<'], '/': ['*'], '%': ['/'], '+=': ['-=', '='], '-=': ['+=', '='], '|=': ['&=', '='], '&=': ['|=', '='],
           '^=': ['='], '++': ['--'], '--': ['++']}
BINARY = {'+': ['-'], '-': ['+'], '|': ['&'], '&': ['|'], '^': ['|']}


class Fault:
    def __init__(self, source, function, kind, start, end, text):
        self.function, self.kind = function.name, kind
        text += '\n' * (source.text.count('\n', start, end) - text.count('\n'))  # lines keep their numbers
        self.start, self.end, self.text = start, end, text
        self.line = source.line(start)
        self.section = source.section(self.line)
        first = source.starts[self.line - 1]
        last = source.text.index('\n', max(end - 1, start))
        self.before = source.text[first:last]
        self.after = source.text[first:start] + text + source.text[end:last]
        self.key = '%s: %s => %s' % (self.function, ' '.join(self.before.split()), ' '.join(self.after.split()))

    def difference(self):
        lines = ['-' + line for line in self.before.split('\n')] + ['+' + line for line in self.after.split('\n') if line.strip()]
        return '\n'.join('    ' + line for line in lines)


class Maker:
    """All the faults of a function."""

    def __init__(self, source, function):
        self.source, self.function, self.tokens = source, function, source.tokens
        self.faults = []

    def text(self, at):
        return self.tokens[at].text

    def add(self, kind, first, last, text):
        start, end = self.tokens[first].start, self.tokens[last].end
        if text != self.source.text[start:end]:
            self.faults.append(Fault(self.source, self.function, kind, start, end, text))

    def span(self, first, last):
        return self.source.text[self.tokens[first].start:self.tokens[last].end]

    def is_cast(self, closed):
        opened = self.source.match.get(closed)
        inner = [self.text(at) for at in range(opened + 1, closed)] if opened is not None else []
        if not inner or WORD.match(self.text(opened - 1)) and self.text(opened - 1) != 'return':
            return False
        return all(WORD.match(text) or text == '*' for text in inner) and (
            inner[-1] == '*' or inner[0] in TYPES or inner[-1].endswith('_t') or len(inner) == 1 and inner[0].startswith('chr_'))

    def is_binary(self, at):
        before = self.text(at - 1)
        if before in (')', ']'):
            return not (before == ')' and self.is_cast(at - 1))
        return before[0] in '"\'' or before[0].isdigit() or WORD.match(before) is not None and before not in NO_STATEMENT

    def left_of(self, at, stops):
        """The first token of the operand before the operator."""
        at -= 1
        while at > self.function.first:
            text = self.text(at)
            if text in (')', ']') and at in self.source.match:
                at = self.source.match[at]
            elif text in stops or text in ('(', '[', '{', '}', ',', ';', '=', '?', ':', 'return') or text in ('+=', '-=', '|=', '&='):
                break
            at -= 1
        return at + 1

    def right_of(self, at, stops):
        at += 1
        while at < self.function.last:
            text = self.text(at)
            if text in ('(', '[') and at in self.source.match:
                at = self.source.match[at]
            elif text in stops or text in (')', ']', ',', ';', '?', ':', '}'):
                break
            at += 1
        return at - 1

    def operators(self, at):
        text = self.text(at)
        for other in SWAPPED.get(text, []):
            self.add('operator', at, at, other)
        if text in BINARY and self.is_binary(at):
            for other in BINARY[text]:
                self.add('operator', at, at, other)
        if text in ('&&', '||'):
            stops = ('&&', '||') if text == '&&' else ('||',)
            left, right = self.left_of(at, stops), self.right_of(at, stops)
            if left < at:
                self.add('dropped condition', left, at, '')
            if right > at:
                self.add('dropped condition', at, right, '')
        if text == '?':
            left = self.left_of(at, ())
            if left < at:
                self.add('negation', left, at, '!(%s) ?' % self.span(left, at - 1))
        if text in ('!', '~') or text == '-' and not self.is_binary(at):
            self.add('negation', at, at, '')

    def constants(self, at):
        text = self.text(at)
        match = NUMBER.match(text)
        if match:
            if self.text(at - 1) == '[' and self.text(at + 1) == ']' and (WORD.match(self.text(at - 3)) or self.text(at - 3) in ('*', ',')):
                return  # the size of an array
            digits = match.group(1)
            if text == '0' and self.text(at - 1) == 'return' and self.text(at + 1) == ';' and self.function.type[-1:] == ['int']:
                return self.add('constant', at, at, '-1')  # callers of functions that return an error code look at its sign
            value = int(digits, 8 if digits.isdigit() and digits[0] == '0' else 0)
            if not (value == 1 and self.is_as_good(at)):
                self.add('constant', at, at, '%d%s' % (value + 1, match.group(2)))
            if value > 0:
                self.add('constant', at, at, '%d%s' % (value - 1, match.group(2)))
        elif text[0] == "'" and len(text) == 3:
            self.add('constant', at, at, "'%s'" % (chr(ord(text[1]) + 1) if text[1] not in '&[~' else '_'))
        elif text[0] == "'":
            self.add('constant', at, at, "'_'")

    def is_as_good(self, at):
        """A 1 for which 2 would do: what is returned or noted as true, and the -1 that stands for none."""
        before = self.text(at - 1)
        if self.text(at + 1) != ';' and before != '-':
            return False
        return before == 'return' or before == '=' and re.match(r'(is|has|was|may|can)_', self.text(at - 2)) or (
            before == '-' and self.text(at - 2) in ('=', 'return'))

    def is_declaration(self, at):
        first, second, third = self.text(at), self.text(at + 1), self.text(at + 2)
        return first in TYPES or WORD.match(first) and (WORD.match(second) or second == '*' and (third == '*' or WORD.match(third)))

    def starts_statement(self, at):
        """2 = a statement of its own, 1 = one that hangs on a condition, 0 = none."""
        before = self.text(at - 1)
        if before in (';', '{', '}') or before == ':' and self.is_label(at - 1):
            opened = self.enclosing(at)
            return 2 if opened is None or self.text(opened) == '{' else 0
        if before == 'else':
            return 1
        opened = self.source.match.get(at - 1) if before == ')' else None
        return 1 if opened is not None and self.text(opened - 1) in CONTROL else 0

    def enclosing(self, at):
        while at > self.function.first:
            at -= 1
            text = self.text(at)
            if text in (')', ']', '}') and at in self.source.match:
                at = self.source.match[at]
            elif text in ('(', '[', '{'):
                return at
        return None

    def is_label(self, at):
        while at > self.function.first:
            at -= 1
            if self.text(at) in ('case', 'default'):
                return True
            if self.text(at) in (';', '{', '}', '?'):
                return False
        return False

    def statements(self, at):
        place, text = self.starts_statement(at), self.text(at)
        if not place or text in (';', '{', '}'):
            return
        end = self.right_of(at - 1, ()) + 1
        while end < self.function.last and self.text(end) != ';':
            end = self.source.match.get(end, end) if self.text(end) in ('(', '[', '{') else end
            end += 1
        drops = text not in NO_STATEMENT and not self.is_declaration(at) and (text != '(' or self.text(at + 4) == '(') and text not in ('va_end', 'va_start')
        if drops:
            self.add('dropped statement', at, end, ';')
        if text == 'return' and self.text(at + 1) != ';':
            value = self.span(at + 1, end - 1)
            if value not in ('0', 'NULL', '1'):
                self.add('return value', at + 1, end - 1, '0')
                self.add('return value', at + 1, end - 1, '!(%s)' % value)
                if re.search(r'[=!<>]=|&&|\|\||[^-<>][<>][^<>]', value):
                    self.add('return value', at + 1, end - 1, '1')
        if drops or text in CONTROL:
            early = 'return;' if self.function.type[-1:] == ['void'] else 'return 0;'
            self.add('early return', at, at, '%s %s' % (early, text) if place == 2 else '{ %s } %s' % (early, text))

    def conditions(self, at):
        if self.text(at) in ('if', 'while') and self.text(at + 1) == '(' and at + 1 in self.source.match:
            closed = self.source.match[at + 1]
            self.add('negation', at + 1, closed, '(!%s)' % self.span(at + 1, closed))
            self.add('condition', at + 1, closed, '(0)')
            if self.text(at) == 'if':
                self.add('condition', at + 1, closed, '(1)')

    def arguments(self, at):
        text = self.text(at)
        if not WORD.match(text) or text in NO_STATEMENT or self.text(at + 1) != '(' or at + 1 not in self.source.match:
            return
        parts, first, here = [], at + 2, at + 2
        while here <= self.source.match[at + 1]:
            if self.text(here) == ',' or here == self.source.match[at + 1]:
                parts.append((first, here - 1))
                first = here + 1
            elif self.text(here) in ('(', '[', '{') and here in self.source.match:
                here = self.source.match[here]
            here += 1
        for (first, last), (start, end) in list(zip(parts, parts[1:]))[text in SYMMETRIC:]:
            if last >= first and self.span(first, last) != self.span(start, end):
                self.add('swapped arguments', first, end, '%s, %s' % (self.span(start, end), self.span(first, last)))

    def make(self):
        for at in range(self.function.first + 1, self.function.last):
            for step in (self.operators, self.constants, self.statements, self.conditions, self.arguments):
                step(at)
        return self.faults


def unreachable_lines(source):
    """Those between GCOV_EXCL_START and GCOV_EXCL_STOP."""
    found, inside = set(), False
    for number, line in enumerate(source.text.split('\n'), 1):
        inside = (inside or 'GCOV_EXCL_START' in line) and 'GCOV_EXCL_STOP' not in line
        if inside:
            found.add(number)
    return found


def all_faults(source, compiled):
    """Those in lines that are compiled on this machine, in order. Their ids stay the same while the line's text does."""
    seen, faults = collections.Counter(), []
    compiled = compiled - unreachable_lines(source)
    for function in source.functions:
        if source.tokens[function.first].start < source.starts[source.sections[0][0] - 1]:
            continue
        for fault in Maker(source, function).make():
            if fault.line not in compiled or 'GCOV_EXCL_LINE' in fault.before:
                continue
            seen[fault.key] += 1
            if seen[fault.key] > 1:
                fault.key += ' #%d' % seen[fault.key]
            fault.id = digest(fault.key)[:8]
            faults.append(fault)
    return faults


def equivalents():
    """Key -> reason."""
    listed, key = {}, None
    for number, line in enumerate(read(EQUIVALENT).split('\n') if os.path.exists(EQUIVALENT) else [], 1):
        if line.startswith('#') or not line.strip():
            continue
        if not line.startswith(' '):
            key = line.strip()
        elif key:
            listed[key], key = line.strip(), None
        else:
            fail('%s:%d: a reason without a fault' % (EQUIVALENT, number))
    return listed


# ---- what is built -----------------------------------------------------------------------------------------------------------

def flavour_flags(flavour):
    return (['-DTEST_FAULTS'] if '-faults' in flavour else []) + (option('TLS_FLAGS').split() if '-tls' in flavour else []) + (
        option('SPICE_FLAGS').split() if '-spice' in flavour else [])


def flavour_libs(flavour):
    return (option('TLS_LIBS').split() if '-tls' in flavour else []) + (option('SPICE_LIBS').split() if '-spice' in flavour else []) + [
        '-pthread', '-lm']


class Program:
    def __init__(self, word):
        self.name, self.flavour, self.own = (word.split(':') + ['', ''])[:3]
        self.source = 'tests/%s.c' % self.name
        self.flags = ['-I.', '-Itests'] + DEFINES + flavour_flags(self.flavour)
        self.implementation = 'own_' + self.name if self.own else 'impl' + self.flavour
        self.object = '%s/tests/%s.o' % (DIR, self.name)
        self.implementation_source = self.source if self.own else 'tests/impl.c'

    def link(self, output, implementation, *more):
        objects = [implementation] if self.own else [self.object, implementation]
        run('gcc', '-no-pie', '-fuse-ld=gold', '-Wl,-z,noexecstack', '-o', output, *objects, *more, *TCC_LIB, *flavour_libs(self.flavour))


# The system's headers hide attributes from compilers that don't say they are gcc: struct epoll_event would have another layout.
TCC_HEADERS = {
    'attributes.h': '#include <sys/cdefs.h>\n#undef __attribute__\n#define __thread\n',
    'spice/start-packed.h': '#pragma pack(push, 1)\n#define SPICE_ATTR_PACKED\n#define SPICE_ATTR_ALIGNED(n)\n',
    'spice/end-packed.h': '#pragma pack(pop)\n#undef SPICE_ATTR_PACKED\n#undef SPICE_ATTR_ALIGNED\n',
}


def tcc(program, folder, strict=True):
    """Compiles the implementation that the program uses, with the header of a folder; returns the object's path."""
    output = '%s/%s.o' % (folder, program.implementation)
    run('tcc', *(['-Wall', '-Werror'] if strict and not program.own and not '-spice' in program.flavour else []),
        '-include', DIR + '/tcc/attributes.h', '-DMBEDTLS_CHECK_CONFIG_H', '-I' + folder, '-I' + DIR + '/tcc', *program.flags,
        '-c', '-o', output, program.implementation_source)
    return output


SEEN = '''
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern char __executable_start, etext;
static unsigned char *seen;

__attribute__((constructor(101))) static void start(void)
{
    const char *path = getenv("MUTATE_SEEN");
    size_t      size = (size_t)(&etext - &__executable_start);
    int         fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;
    void       *map;
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0) return;
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (map != MAP_FAILED) seen = map;
}

void __sanitizer_cov_trace_pc(void)
{
    if (seen) seen[(char *)__builtin_return_address(0) - &__executable_start] = 1;
}
'''


def build(programs, pool):
    """The test programs' objects, and the programs that tell what they reach (for those whose map is out of date)."""
    write(DIR + '/seen.c', SEEN)
    for name, text in TCC_HEADERS.items():
        write(DIR + '/tcc/' + name, text)
    os.makedirs(DIR + '/tests', exist_ok=True)
    os.makedirs(DIR + '/cover', exist_ok=True)
    run('gcc', '-O1', '-c', '-o', DIR + '/seen.o', DIR + '/seen.c')
    common = ['gcc', '-std=gnu99', '-O0', '-g1', '-no-pie', '-fno-pie', '-w', '-pthread', '-c']

    def compile_object(program):
        if not program.own:
            run(*common, *program.flags, '-DCHARDEV_LINKED', '-o', program.object, program.source)

    def compile_cover(program):
        run(*common, '-fsanitize-coverage=trace-pc', *program.flags, '-o', '%s/cover/%s.o' % (DIR, program.implementation),
            program.implementation_source)

    def link_cover(program):
        program.link('%s/cover/%s' % (DIR, program.name), '%s/cover/%s.o' % (DIR, program.implementation), DIR + '/seen.o')

    stale = [program for program in programs if program.stale]
    implementations = {program.implementation: program for program in stale}.values()
    list(pool.map(compile_cover, implementations))
    list(pool.map(compile_object, [program for program in programs if program.stale or not os.path.exists(program.object)]))
    list(pool.map(link_cover, stale))


# ---- which tests reach which lines -------------------------------------------------------------------------------------------

class Lines:
    """The lines of chardev.h that the blocks of a program's code come from."""

    def __init__(self, path):
        data = open(path, 'rb').read()
        symbols = dict((name, int(value, 16)) for value, _, name in
                       (line.split() for line in run('nm', path).split('\n') if len(line.split()) == 3))
        self.base, target = symbols['__executable_start'], symbols['__sanitizer_cov_trace_pc']
        self.blocks = self.find_blocks(data, target)
        self.rows = sorted((int(words[2], 16), int(words[1])) for words in
                           (line.split() for line in run('objdump', '--dwarf=decodedline', path).split('\n') if line.startswith(HEADER))
                           if len(words) > 2 and words[1].isdigit())
        self.all = {line for _, line in self.rows}
        self.lines = self.find_lines()

    @staticmethod
    def find_blocks(data, target):
        """What each call of __sanitizer_cov_trace_pc() returns to."""
        place, = struct.unpack_from('<Q', data, 0x28)
        size, count = struct.unpack_from('<HH', data, 0x3a)
        blocks = []
        for at in range(count):
            _, _, flags, address, offset, length = struct.unpack_from('<IIQQQQ', data, place + at * size)
            if not flags & 4:  # no code
                continue
            for match in re.finditer(b'\xe8', data[offset:offset + length]):
                if match.end() + 4 <= length and \
                   address + match.end() + 4 + struct.unpack_from('<i', data, offset + match.end())[0] == target:
                    blocks.append(address + match.end() + 4)
        return sorted(blocks)

    def find_lines(self):
        """Block -> lines: from the one in effect where it begins to those up to the next block."""
        lines, row = {}, 0
        for block, after in zip(self.blocks, self.blocks[1:] + [1 << 62]):
            while row + 1 < len(self.rows) and self.rows[row + 1][0] <= block:
                row += 1
            here = set()
            at = row
            while at < len(self.rows) and (at == row or self.rows[at][0] < after - 5):
                if self.rows[at][0] >= block - 5 or at == row:
                    here.add(self.rows[at][1])
                at += 1
            lines[block] = here
        return lines

    def reached(self, seen):
        found = set()
        for match in re.finditer(b'\x01', seen):
            found |= self.lines.get(self.base + match.start(), set())
        return found


def run_test(path, name, limit, seen=None, output=None):
    """Whether the test passes, and the seconds it has taken."""
    environment = dict(os.environ, TEST_LIMIT=str(limit), **({'MUTATE_SEEN': seen} if seen else {}))
    for make in ('MAKEFLAGS', 'MFLAGS', 'MAKELEVEL'):
        environment.pop(make, None)
    started = time.monotonic()
    output = output or path + '.out'
    with open(output, 'wb') as file:
        process = subprocess.Popen([os.path.abspath(path), '-x', name], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                                   env=environment, start_new_session=True)
        try:
            process.wait(limit + 20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    with open(output, 'rb') as file:
        file.seek(max(0, os.path.getsize(output) - 100))
        passed = file.read().endswith(b'1 passed, 0 failed, 0 skipped\n')
    return passed and process.returncode == 0, time.monotonic() - started


def as_ranges(numbers):
    """[first, last, first, last ...]"""
    ranges = []
    for number in sorted(numbers):
        if ranges and ranges[-1] == number - 1:
            ranges[-1] = number
        else:
            ranges += [number, number]
    return ranges


def from_ranges(ranges):
    for first, last in zip(ranges[::2], ranges[1::2]):
        yield from range(first, last + 1)


def map_program(program, pool):
    """Test -> [seconds, whether it passes, the lines it reaches]."""
    path = '%s/cover/%s' % (DIR, program.name)
    lines = Lines(path)

    def one(item):
        number, name = item
        seen = '%s/cover/%s.%d' % (DIR, program.name, number)
        passed, seconds = run_test(path, name, 120, seen, seen + '.out')
        reached = lines.reached(open(seen, 'rb').read()) if os.path.exists(seen) else set()
        for file in (seen, seen + '.out'):
            if os.path.exists(file):
                os.remove(file)
        return name, [round(seconds, 3), passed, as_ranges(reached)]

    return {'tests': dict(pool.map(one, enumerate(run(path, '-l').splitlines()[:-1]))), 'lines': as_ranges(lines.all)}


def moved_lines(old, new):
    """Old number -> new number of the lines that both have."""
    write(DIR + '/old.h', old)
    write(DIR + '/new.h', new)
    done = subprocess.run(['diff', DIR + '/old.h', DIR + '/new.h'], capture_output=True, text=True, check=False)
    moved, here, shift, count = {}, 1, 0, old.count('\n') + 2
    for match in re.finditer(r'^(\d+)(?:,(\d+))?([acd])(\d+)(?:,(\d+))?$', done.stdout, re.M):
        first, last, what = int(match.group(1)), int(match.group(2) or match.group(1)), match.group(3)
        to, end = int(match.group(4)), int(match.group(5) or match.group(4))
        first, last = (first + 1, first) if what == 'a' else (first, last)
        for number in range(here, first):
            moved[number] = number + shift
        shift += (0 if what == 'd' else end - to + 1) - (last - first + 1)
        here = last + 1
    for number in range(here, count):
        moved[number] = number + shift
    return moved


def make_certificates():
    """For test_tls, which would make them anew for each of its tests."""
    place = os.path.abspath(DIR + '/certs')
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    if shutil.which('openssl') and subprocess.run(['sh', 'tests/tls_certs.sh', place], capture_output=True, check=False).returncode == 0:
        os.environ['TEST_TLS_CERTS'] = place


class Map:
    def __init__(self, programs, source, pool):
        kept = {}
        for program in programs:
            path = '%s/map/%s.json' % (DIR, program.name)
            kept[program.name] = json.loads(read(path)) if os.path.exists(path) and not option('REMAP') else {}
        headers = digest(*[read(name) for name in sorted(glob.glob('tests/*.h'))])
        self.header_id = digest(source.text)
        write('%s/headers/%s' % (DIR, self.header_id), source.text)
        for program in programs:
            program.key = digest('1', read(program.source), headers, *program.flags)
            program.stale = kept[program.name].get('key') != program.key
        stale = [program for program in programs if program.stale]
        if stale:
            print('mutate: building and running %d test programs to see what they reach' % len(stale), flush=True)
        started = time.monotonic()
        build(programs, pool)
        with concurrent.futures.ThreadPoolExecutor(2 * JOBS) as wide:
            for program in stale:
                kept[program.name] = dict(map_program(program, wide), key=program.key, header=self.header_id)
                write('%s/map/%s.json' % (DIR, program.name), json.dumps(kept[program.name]))
        if stale:
            print('mutate: %.0f s' % (time.monotonic() - started), flush=True)
        self.read(kept, programs, source)

    def read(self, kept, programs, source):
        self.tests = {}  # (program, test) -> [seconds, passed, number of lines]
        self.by_line = collections.defaultdict(list)
        self.lines = set()
        moves = {}
        for program in programs:
            entry = kept[program.name]
            if entry['header'] != self.header_id and entry['header'] not in moves:
                moves[entry['header']] = moved_lines(read('%s/headers/%s' % (DIR, entry['header'])), source.text)
            move = moves.get(entry['header'])
            self.lines.update(line for line in (move.get(line) if move else line for line in from_ranges(entry['lines'])) if line)
            for name, (seconds, passed, lines) in entry['tests'].items():
                if not passed:
                    continue
                test = (program.name, name)
                lines = list(from_ranges(lines))
                self.tests[test] = (seconds, len(lines))
                for line in lines:
                    line = move.get(line) if move else line
                    if line:
                        self.by_line[line].append(test)

    def tests_of(self, fault, first_line):
        """In the order in which they are to be run: a few of each program in turn, those first that reach little else."""
        line = fault.line
        while line > first_line and line not in self.lines:
            line -= 1
        if line == first_line < fault.line:  # a declaration before all that is done there
            line = next((later for later in range(fault.line, fault.line + 20) if later in self.lines), line)
        by_program = collections.defaultdict(list)
        for test in self.by_line.get(line, []):
            by_program[test[0]].append(test)
        for tests in by_program.values():
            tests.sort(key=lambda test: (1 + self.tests[test][1]) * (0.1 + self.tests[test][0]))
        programs = sorted(by_program.values(), key=lambda tests: sum(self.tests[test][1] for test in tests[:3]) / len(tests[:3]))
        order = []
        for start in range(0, max(map(len, programs), default=0), 3):
            for tests in programs:
                order += tests[start:start + 3]
        return [test for test in order if self.tests[test][0] < 0.5] + [test for test in order if self.tests[test][0] >= 0.5]


def compiled_lines(programs):
    """The lines of chardev.h that the preprocessor leaves."""
    found = set()
    for program in {program.flavour: program for program in programs if not program.own}.values():
        number, inside = 0, False
        for line in run('gcc', '-E', '-std=gnu99', *program.flags, 'tests/impl.c').split('\n'):
            match = re.match(r'# (\d+) "(.*?)"', line)
            if match:
                number, inside = int(match.group(1)), os.path.basename(match.group(2)) == HEADER
                continue
            if inside and line.strip():
                found.add(number)
            number += 1
    return found


# ---- trying a fault --------------------------------------------------------------------------------------------------------------

class Trial:
    """What has come of a fault: `verdict` is caught, survived, same (object code) or broken (doesn't compile)."""

    def __init__(self, fault):
        self.fault, self.verdict, self.by, self.ran, self.tests = fault, None, None, 0, 0


class Trier:
    def __init__(self, source, programs, reach):
        self.source, self.reach = source, reach
        self.programs = {program.name: program for program in programs}
        self.first_line = {}
        for function in source.functions:
            self.first_line.setdefault(function.name, []).append(source.line(source.tokens[function.first].start))
        self.lock = threading.Lock()
        self.passes = {}  # test -> whether it passes without a fault
        self.objects = {}
        self.body_start = source.starts[source.sections[0][0] - 1]
        self.base = DIR + '/base'
        write(self.base + '/' + HEADER, source.text)
        self.folders = ['%s/worker%d' % (DIR, number) for number in range(JOBS)]
        self.verbose = bool(option('MUTANT'))

    def base_object(self, program):
        with self.lock:
            if program.implementation not in self.objects:
                path = tcc(program, self.base, False)
                self.objects[program.implementation] = open(path, 'rb').read()
            return self.objects[program.implementation]

    def passes_without(self, test):
        program = self.programs[test[0]]
        self.base_object(program)
        with self.lock:
            if test not in self.passes:
                path = '%s/%s' % (self.base, program.name)
                if not os.path.exists(path) or os.path.getmtime(path) < BEGAN:
                    program.link(path, '%s/%s.o' % (self.base, program.implementation))
                self.passes[test], _ = run_test(path, test[1], self.limit(test))
                if not self.passes[test]:
                    print('mutate: %s %s fails without a fault and is of no use here' % test, flush=True)
            return self.passes[test]

    def limit(self, test):
        return math.ceil(3 + 6 * self.reach.tests[test][0])

    def say(self, text):
        if self.verbose:
            print('    ' + text, flush=True)

    def try_fault(self, fault):
        folder = self.folders.pop()
        try:
            return self.try_in(folder, Trial(fault))
        finally:
            self.folders.append(folder)

    def try_in(self, folder, trial):
        fault, same, built = trial.fault, True, {}
        started = max([line for line in self.first_line[fault.function] if line <= fault.line], default=1)
        tests = self.reach.tests_of(fault, started)
        trial.tests = len(tests)
        shutil.rmtree(folder, ignore_errors=True)
        write(folder + '/' + HEADER, self.source.text[:fault.start] + fault.text + self.source.text[fault.end:])
        spent = 0
        if not tests:  # whether it compiles is to be known all the same
            program = max(self.programs.values(), key=lambda program: (not program.own, fault.section not in SPICED or '-spice' in program.flavour,
                                                                       '-tls' in program.flavour))
            trial.verdict = self.compile(program, folder, built) or ('same' if self.same_assembly(fault) else 'survived')
            return trial
        for test in tests:
            program = self.programs[test[0]]
            spent += self.reach.tests[test][0]
            if trial.ran and (spent > BUDGET or trial.ran >= MOST_TESTS):
                break
            if program.implementation not in built:
                verdict = self.compile(program, folder, built)
                if verdict == 'broken':
                    trial.verdict = verdict
                    return trial
                built[program.implementation] = verdict
            if built[program.implementation] == 'same':
                continue
            same = False
            trial.ran += 1
            if self.catches(folder, program, test):
                trial.verdict, trial.by = 'caught', test
                return trial
        trial.verdict = 'same' if same or self.same_assembly(fault) else 'survived'
        return trial

    def compile(self, program, folder, built):
        try:
            path = tcc(program, folder)
        except RuntimeError as error:
            self.say(str(error).strip().split('\n')[-1])
            return 'broken'
        return 'same' if open(path, 'rb').read() == self.base_object(program) else None

    def catches(self, folder, program, test):
        path = '%s/%s' % (folder, program.name)
        if not os.path.exists(path):
            try:
                program.link(path, '%s/%s.o' % (folder, program.implementation))
            except RuntimeError as error:
                fail(str(error))
        passed, seconds = run_test(path, test[1], self.limit(test))
        self.say('%s %s: %s (%.2f s)' % (*test, 'passes' if passed else 'FAILS', seconds))
        if passed:
            return False
        if self.verbose:
            print(read_tail(path + '.out'), flush=True)
        return self.passes_without(test) and not run_test(path, test[1], self.limit(test))[0]

    def alone(self, fault, text):
        """The header with the body of the function that the fault is in, changed to `text`, and no other but those always inlined."""
        parts, at = [], 0
        for function in self.source.functions:
            start, end = self.source.tokens[function.first].start, self.source.tokens[function.last].end
            if start <= fault.start < end:
                parts += [self.source.text[at:fault.start], text, self.source.text[fault.end:end]]
            elif start < self.body_start or 'CHR__HOT_INLINE' in function.type or 'inline' in function.type:
                continue
            else:
                parts += [self.source.text[at:start], ';', '\n' * self.source.text.count('\n', start, end)]
            at = end
        return (''.join(parts) + self.source.text[at:]).replace('__attribute__((always_inline))', '')  # those would not be kept

    def same_assembly(self, fault):
        """Whether gcc makes the same of the function, with all flavours on."""
        command = ['gcc', '-xc', '-std=gnu99', '-O1', '-w', '-fkeep-static-functions', '-fkeep-inline-functions', '-S', '-o', '-', *DEFINES, *flavour_flags('-tls-spice'), '-']

        def assembly(text):
            return subprocess.run(command, input='#define CHARDEV_IMPLEMENTATION\n' + text, capture_output=True, text=True, check=False)

        base = assembly(self.alone(fault, self.source.text[fault.start:fault.end]))
        if base.returncode != 0:
            self.say(base.stderr[:400])
            return False
        return base.stdout == assembly(self.alone(fault, fault.text)).stdout


def read_tail(path):
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - 2000))
        return '\n'.join('        ' + line for line in file.read().decode(errors='replace').strip().split('\n')[-12:])


# ---- which faults, and what is said of them --------------------------------------------------------------------------------------

SPICED = {'be_spice'}
ELSEWHERE = {'windows', 'freestanding'}  # sections of other systems, of which little or nothing is compiled here


def by_line(faults):
    lines = collections.defaultdict(list)
    for fault in faults:
        lines[fault.line].append(fault)
    return lines


def shuffled(faults, chance):
    """In a random order in which each line is equally likely to be the next one, however many faults it can have."""
    lines = by_line(faults)
    for group in lines.values():
        chance.shuffle(group)
    order = []
    while lines:
        numbers = list(lines)
        chance.shuffle(numbers)
        for number in numbers:
            order.append(lines[number].pop())
            if not lines[number]:
                del lines[number]
    return order


class Report:
    def __init__(self, sections):
        self.sections = sections
        self.counts = collections.defaultdict(collections.Counter)
        self.survivors = []  # a line each
        shutil.rmtree(DIR + '/survivors', ignore_errors=True)

    def add(self, trial):
        fault = trial.fault
        self.counts[fault.section][trial.verdict] += 1
        if trial.verdict != 'survived':
            return
        ran = '%d of %d tests' % (trial.ran, trial.tests) if trial.ran < trial.tests else '%d tests' % trial.ran if trial.ran else 'no test reaches it'
        text = '%s  %s  %s:%d  %s  %s (%s)\n%s\n' % (fault.id, fault.section, HEADER, fault.line, fault.function, fault.kind, ran, fault.difference())
        print('survived: ' + text, flush=True)
        self.survivors.append('%s  %s  %s' % (fault.id, fault.section, fault.key))
        os.makedirs(DIR + '/survivors', exist_ok=True)
        with open('%s/survivors/%s' % (DIR, fault.section), 'a', encoding='utf-8') as file:
            file.write(text + '\n')

    @staticmethod
    def score(counts):
        total = counts['caught'] + counts['survived']
        return 100.0 * counts['caught'] / total if total else 100.0

    def table(self):
        rows, total = [], collections.Counter()
        for section in self.sections:
            counts = self.counts[section]
            if counts['caught'] + counts['survived']:
                rows.append((self.score(counts), section, counts))
            total.update(counts)
        lines = ['%-18s %7s %7s %9s %9s' % ('section', 'faults', 'caught', 'survived', 'score')]
        for score, section, counts in sorted(rows, key=lambda row: row[:2]) + [(self.score(total), 'total', total)]:
            lines.append('%-18s %7d %7d %9d %7.0f %%' % (section, counts['caught'] + counts['survived'], counts['caught'], counts['survived'], score))
        return '\n'.join(lines), total


def choose(faults, sections):
    chance = random.Random(option('SEED', '1'))
    if option('MUTANT'):
        wanted = option('MUTANT').split()
        chosen = [fault for fault in faults if fault.id in wanted]
        for missing in set(wanted) - {fault.id for fault in chosen}:
            fail('there is no fault %s in this chardev.h' % missing)
        return {'': (chosen, len(chosen))}
    number = sys.maxsize if option('N') == 'all' else int(option('N', '60'))
    each = int(option('EACH', '0'))
    groups = {}
    if each:
        for section in sections:
            here = shuffled([fault for fault in faults if fault.section == section], chance)
            groups[section] = (here, each)
            number -= min(each, len(here))
    if number > 0:
        groups[''] = (shuffled(faults, chance), number)
    return groups


def try_all(groups, trier, report, pool):
    """Of each group so many as are wanted; those that are no faults don't count."""
    tried, lock = set(), threading.Lock()

    def worker(order, left):
        while True:
            with lock:
                fault = next((fault for fault in order if fault.id not in tried), None) if left[0] > 0 else None
                if fault is None:
                    return
                tried.add(fault.id)
                left[0] -= 1
            trial = trier.try_fault(fault)
            with lock:
                report.add(trial)
                if trial.verdict not in ('caught', 'survived'):
                    left[0] += 1
                if trier.verbose:
                    print('%s: %s%s' % (fault.id, trial.verdict, ' by %s %s' % trial.by if trial.by else ''), flush=True)

    for order, count in groups.values():
        faults, left = iter(order), [count]
        list(pool.map(lambda _, faults=faults, left=left: worker(faults, left), range(JOBS)))
        if option('SCORE'):  # a file that always has the score so far
            write(option('SCORE'), report.table()[0] + '\n')


def main():
    for tool in ('tcc', 'gcc', 'objdump', 'diff'):
        if not shutil.which(tool):
            fail('%s is missing' % tool)
    source = Source(read(HEADER))
    programs = [Program(word) for word in option('TEST_PROGRAMS').split()]
    if not programs:
        fail('start it with `make mutate`')
    names = [name for name in dict.fromkeys(name for _, name in source.sections) if name not in ELSEWHERE]
    sections = option('SECTION').split() or names
    for section in sections:
        if section not in names:
            fail('there is no section %s: %s' % (section, ' '.join(names)))
    compiled = compiled_lines(programs)
    faults = all_faults(source, compiled)
    listed = equivalents()
    for key in listed:
        if all(fault.key != key for fault in faults):
            print('mutate: %s: no such fault (any more): %s' % (EQUIVALENT, key), flush=True)
    if not option('MUTANT'):
        faults = [fault for fault in faults if fault.section in sections and fault.key not in listed]
    if option('FUNCTION'):
        faults = [fault for fault in faults if fault.function in option('FUNCTION').split()]
    if option('LIST'):
        for fault in faults:
            print('%s  %s  %d\n    %s' % (fault.id, fault.section, fault.line, fault.key))
        return 0
    groups = choose(faults, sections)
    make_certificates()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        reach = Map(programs, source, pool)
        resource.setrlimit(resource.RLIMIT_FSIZE, (256 << 20, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, resource.RLIM_INFINITY))
        started = time.monotonic()
        report = Report(names)
        try_all(groups, Trier(source, programs, reach), report, pool)
    table, total = report.table()
    count = total['caught'] + total['survived']
    seconds = time.monotonic() - started
    print(table)
    print('%d didn\'t compile, %d gave the same object code; %.0f s, %.0f faults a minute' % (
        total['broken'], total['same'], seconds, 60 * count / seconds if seconds else 0))
    least = float(option('MIN', '0'))
    if Report.score(total) < least:
        print('\n'.join(['What survived:'] + report.survivors))
        print('mutate: FAILED: %.1f %% caught, fewer than %g %% (make mutate MUTANT=... tries one again)' % (Report.score(total), least))
        return 1
    return 0


BEGAN = time.time()
JOBS = int(option('JOBS') or os.cpu_count() or 2)
BUDGET = float(option('BUDGET', '30'))

if __name__ == '__main__':
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), '..'))
    sys.exit(main())
