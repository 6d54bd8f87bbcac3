# SECTION NAME KEY VALUE lines, grouped by section and name -> one JSON object.
{ if (!($1 in names)) sections[++section_count] = $1 }
!(($1, $2) in seen) { seen[$1, $2] = 1; names[$1] = names[$1] " " $2 }
{ fields[$1, $2] = fields[$1, $2] (fields[$1, $2] ? ", " : "") "\"" $3 "\": " ($4 ~ /^-?[0-9.]+$/ ? $4 : "\"" $4 "\"") }
END {
    printf "{"
    for (s = 1; s <= section_count; s++) {
        printf "%s\n  \"%s\": {", (s > 1 ? "," : ""), sections[s]
        count = split(names[sections[s]], name, " ")
        for (n = 1; n <= count; n++)
            printf "%s\n    \"%s\": { %s }", (n > 1 ? "," : ""), name[n], fields[sections[s], name[n]]
        printf "\n  }"
    }
    printf "\n}\n"
}
