# The reference, from the public part of chardev.h, which is the only place where its sentences stand. A section of the header
# (>>frontend) is a page, chardev_frontend.3; what it declares is a link to that page; the comment at the head is chardev.3.
#
#     awk -v format=man  -v out=DIR -v version=0.2.0 -v date=2026-11-27 -f man/reference.awk chardev.h chardev.h
#     awk -v format=html -v style=man/reference.css -v version=0.2.0 -f man/reference.awk chardev.h chardev.h >reference.html
#
# It reads the header twice: for the names that are declared, then for the text. What it relies on: a comment that begins in the
# first column belongs to the declarations right below it; without any it is text of its own. Lines of a comment that are indented
# by four columns are shown as they are, or are a list when the first begins with "- ". Conditionals (#if) are not shown.

function fail(text) { print "reference.awk: " text >"/dev/stderr"; status = 1; exit 1 }

# ---- what a line declares ---------------------------------------------------------------------------------------------------

# The name, or "". Of functions, types, macros and constants that are given one by one.
function declared(line) {
    if (match(line, /^CHARDEV_API .*[ *]chr_[a-z0-9_]+\(/)) {
        sub(/\(.*/, "", line)
        sub(/.*[ *]/, "", line)
        return line
    }
    if (match(line, /^#define CHR[A-Z_]+/)) return substr(line, 9, RLENGTH - 8)
    if (match(line, /^} chr_[a-z][a-z_]*;/)) return substr(line, 3, RLENGTH - 3)
    if (match(line, /^struct chr_[a-z][a-z_]* \{/)) return substr(line, 8, RLENGTH - 9)
    return ""
}

function is_function(name) { return name ~ /^chr_/ && functions[name] }

# ---- the two formats ---------------------------------------------------------------------------------------------------------

function html(text) { gsub(/&/, "\\&amp;", text); gsub(/</, "\\&lt;", text); gsub(/>/, "\\&gt;", text); return text }

# With a link from each name to its place, but from `self`.
function linked(text, self,    done, name) {
    text = html(text)
    while (match(text, /chr_[a-z0-9_]+|>>[a-z_]+|&gt;&gt;[a-z_]+/)) {
        name = substr(text, RSTART, RLENGTH)
        done = done substr(text, 1, RSTART - 1)
        text = substr(text, RSTART + RLENGTH)
        if (name ~ /^&gt;/ && substr(name, 9) in titles) done = done "<a href=\"#" substr(name, 9) "\">" substr(name, 9) "</a>"
        else if (name in page_of && name != self) done = done "<a href=\"#" name "\">" name "</a>"
        else done = done name
    }
    return done text
}

function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    sub(/^[.']/, "\\\\\\&&", text)
    return text
}

# In lines of 78 columns, none of which begins as a request.
function wrapped(text,    words, count, i, line, all) {
    count = split(text, words, / +/)
    for (i = 1; i <= count; i++) {
        if (line != "" && length(line) + length(words[i]) > 77) { all = all line "\n"; line = "" }
        if (line == "" && words[i] ~ /^[.']/) words[i] = "\\&" words[i]
        line = line (line == "" ? "" : " ") words[i]
    }
    return all line
}

function roff_text(text,    done, name) {
    while (match(text, /chr_[a-z0-9_]+\(\)|>>[a-z_]+/)) {
        name = substr(text, RSTART, RLENGTH)
        done = done roff(substr(text, 1, RSTART - 1))
        text = substr(text, RSTART + RLENGTH)
        if (name ~ /^>>/) done = done (substr(name, 3) in titles ? "\\fBchardev_" substr(name, 3) "\\fP(3)" : name)
        else done = done "\\fB" substr(name, 1, length(name) - 2) "\\fP()"
    }
    return wrapped(done roff(text))
}

function man_name(page) { return page == "overview" ? "chardev" : "chardev_" page }

function put(text) { if (format == "man") print text >page_file; else print text }

function page_begin(name, title,    names) {
    page = name
    if (format == "man") {
        page_file = out "/" (man_name(name)) ".3"
        names = page_names[name]
        put(".TH " toupper(man_name(name)) " 3 " date " \"chardev " version "\" \"chardev.h\"")
        put(".SH NAME")
        put(wrapped((man_name(name) (names == "" ? "" : ", " names)) " \\- " roff(title)))
        put(".SH SYNOPSIS\n.B #include <chardev.h>\n.SH DESCRIPTION")
        fresh = 1
    } else
        put("<section id=\"" name "\"><h2>" html(name == "overview" ? "chardev.h" : name) "</h2><p class=\"title\">" html(title) "</p>")
}

# The overview's list of the others.
function contents(    i) {
    heading("SECTIONS", 2, "")
    for (i = 1; i <= sections; i++)
        if (format == "man") put(".TP\n.BR chardev_" order[i] " (3)\n" roff_text(titles[order[i]]))
        else item(">>" order[i] ": " titles[order[i]])
    fresh = 0
}

function page_end(    i, others) {
    if (page == "") return
    if (page == "overview") contents()
    if (format == "html") put("</section>")
    else {
        put(".SH SEE ALSO")
        if (page != "overview") others = ".BR chardev (3)"
        for (i = 1; i <= sections; i++)
            if (order[i] != page) others = others (others == "" ? "" : " ,\n") ".BR chardev_" order[i] " (3)"
        put(others)
        close(page_file)
    }
    page = ""
}

function heading(text, level, names,    i, list, count) {
    if (format == "man") { put((level == 2 ? ".SH " : ".SS ") "\"" roff(text) "\""); fresh = 1; return }
    count = split(names, list, / /)
    for (i = 1; i <= count; i++) printf "<a id=\"%s\"></a>", list[i]
    put((count ? "<h4>" : "<h3>") html(text) (count ? "</h4>" : "</h3>"))
}

function paragraph(text) {
    if (text == "") return
    if (format == "man") { if (!fresh) put(".PP"); put(roff_text(text)) }
    else put("<p>" linked(text, "") "</p>")
    fresh = 0
}

function item(text) {
    if (format == "man") put(".IP \\(bu 2\n" roff_text(text))
    else put("<li>" linked(text, "") "</li>")
    fresh = 0
}

function verbatim(lines, count, is_code,    i, text) {
    while (count && lines[count] == "") count--
    if (!count) return
    if (format == "man") {
        put((fresh ? "" : ".PP\n") (is_code ? "" : ".RS 4\n") ".EX")
        for (i = 1; i <= count; i++) put(roff(lines[i]))
        put(".EE" (is_code ? "" : "\n.RE"))
    } else {
        for (i = 1; i <= count; i++) text = text (i > 1 ? "\n" : "") linked(lines[i], "")
        put("<pre" (is_code ? " class=\"code\"" : "") ">" text "</pre>")
    }
    fresh = 0
}

# ---- a comment's text: paragraphs, lists, and what stands as it is ------------------------------------------------------------

function flush_text() { paragraph(held); held = "" }

function flush_block(    i) {
    if (!block_count) return
    if (block[1] ~ /^- /) {
        if (format == "html") put("<ul>")
        for (i = 1; i <= block_count; i++) {
            if (block[i] ~ /^- / && held != "") { item(held); held = "" }
            if (block[i] != "") held = held (held == "" ? "" : " ") substr(block[i], 3)
        }
        item(held)
        held = ""
        if (format == "html") put("</ul>")
    } else verbatim(block, block_count, 0)
    block_count = 0
}

function prose(lines, count,    i, line, title) {
    for (i = 1; i <= count; i++) {
        line = lines[i]
        if (line ~ /^    / || (line == "" && block_count)) {
            flush_text()
            if (block_count || line != "") block[++block_count] = substr(line, 5)
            continue
        }
        flush_block()
        if (line == "") { flush_text(); continue }
        if (held == "" && match(line, /^[A-Z][A-Z]+( [A-Z][A-Z]+)*[. ]/) && page == "overview") {
            title = substr(line, 1, RLENGTH - 1)
            heading(title, 2, "")
            if (substr(line, RLENGTH, 1) == ".") line = substr(line, RLENGTH + 2)
        }
        held = held (held == "" ? "" : " ") line
    }
    flush_block()
    flush_text()
}

# A comment and the declarations below it; either may be missing.
function group(    i, name, names, shown, of_api) {
    for (i = 1; i <= code_count; i++)
        if ((name = declared(code[i])) != "" && name in page_of && index(" " names " ", " " name " ") == 0) {
            names = names (names == "" ? "" : " ") name
            shown = shown (shown == "" ? "" : ", ") name (is_function(name) ? "()" : "")
        }
    if (doc_count && doc[1] ~ /^-- /) {
        name = doc[1]
        gsub(/^-- | -+$/, "", name)
        heading(name, 3, "")
        doc[1] = ""
    }
    if (names != "") heading(shown, 3, names)
    for (i = 1; i <= code_count; i++)
        if (sub(/^CHARDEV_API +/, "", code[i])) of_api = 1
        else if (code[i] !~ /^            /) of_api = 0
        else if (of_api) code[i] = substr(code[i], 13)
    verbatim(code, code_count, 1)
    prose(doc, doc_count)
    doc_count = code_count = 0
}

# ---- the header, line by line -----------------------------------------------------------------------------------------------

function comment_line(line) {
    sub(/ *\*\/ *$/, "", line)
    sub(/^\/\* ?/, "", line)
    sub(/^ \* ?/, "", line)
    sub(/^ +$/, "", line)
    return line ~ /^=+$/ ? "=" : line
}

FNR == 1 { pass++; section = "overview"; in_head = in_comment = over = skip = 0 }
over { next }
/^#endif \/\* CHARDEV_H \*\// { over = 1; next }

# First: names, and where they stand.
pass == 1 {
    if ($0 ~ /^ \* >>[a-z_]+   / && section_seen++ >= 0) {
        section = substr($2, 3)
        order[++sections] = section
        titles[section] = $0
        sub(/^ \* >>[a-z_]+ +/, "", titles[section])
    }
    name = declared($0)
    if (name != "" && name !~ /^CHR_(PRINTF|ERROR_ENUM)$/ && !(name in page_of) && section != "overview") {
        page_of[name] = section
        if ($0 ~ /^CHARDEV_API/) functions[name] = 1
        page_names[section] = page_names[section] (page_names[section] == "" ? "" : ", ") name
        if (format == "man") {
            print ".so man3/chardev_" section ".3" >(out "/" name ".3")
            close(out "/" name ".3")
        }
    }
    next
}

# Then: the head comment.
FNR == 1 { begin(); in_head = 1; next }
in_head {
    if ($0 == " */") { in_head = 0; prose(doc, doc_count); doc_count = 0; next }
    line = comment_line($0)
    if (line ~ /^CONTENTS\./) skip = 1
    else if (line ~ /^[A-Z][A-Z]+ [A-Z]+\. /) skip = 0
    if (!skip && FNR > 2) doc[++doc_count] = line
    next
}

# A section's banner, and the text in it.
/^\/\* =+$/ { group(); page_end(); banner = 1; next }
banner && / >>[a-z_]+   / { sub(/.*>>/, ""); name = $1; page_begin(name, titles[name]); next }
banner {
    line = comment_line($0)
    if (line != "=") doc[++doc_count] = line
    if ($0 ~ /\*\/ *$/) { banner = 0; prose(doc, doc_count); doc_count = 0 }
    next
}
page == "overview" { next }

# Declarations, and the comments above them.
in_comment || /^\/\* ?[^ ]/ {
    if (!in_comment) group()
    doc[++doc_count] = comment_line($0)
    in_comment = $0 !~ /\*\/ *$/
    next
}
/^#if.*__cplusplus/ { skip = 1; next }
/^#(else|elif|endif)/ { skip = 0; next }
/^#(if|undef)/ || skip { next }
/^$/ && !depth { group(); next }
{ code[++code_count] = $0; depth += gsub(/[{]/, "{") - gsub(/[}]/, "}") }

function begin(    i, j, line, list, count) {
    if (!sections) fail("no sections: give the header twice")
    if (format == "html") {
        print "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
        print "<title>chardev.h " version "</title>"
        while ((getline line < style) > 0) print line
        print "<nav><p><a href=\"#overview\">chardev.h</a> " version "</p>"
        for (i = 1; i <= sections; i++) {
            print "<details><summary><a href=\"#" order[i] "\">" order[i] "</a></summary>"
            count = split(page_names[order[i]], list, /, /)
            for (j = 1; j <= count; j++) print "<a href=\"#" list[j] "\">" list[j] "</a>"
            print "</details>"
        }
        print "</nav><main>"
    }
    page_begin("overview", "character devices with exchangeable backends, in one C header")
}

END {
    if (status) exit status
    group()
    page_end()
    if (format == "html") print "</main></html>"
}
