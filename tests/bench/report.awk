# Prints the results of tests/bench/run as a table, writes them as JSON to the file
# `json`, and the rows that have a goal as Markdown to the file `markdown`. The lines
# of the input, with tabs between the words:
#   fact NAME TEXT, package NAME VERSION, note TEXT, row ID UNIT TITLE,
#   subject ROW KEY KIND GOAL LABEL, sample ROW KEY VALUE
# The ratio of the best tenths is printed beside that of the medians. The spread is from
# the 10th to the 90th percentile, or from the least to the greatest of fewer than ten
# samples.
BEGIN { FS = "\t" }
$1 == "fact" { facts[++fact_count] = $2; fact[$2] = $3 }
$1 == "package" { packages[++package_count] = $2; version[$2] = $3 }
$1 == "note" { notes[++note_count] = $2 }
$1 == "row" { rows[++row_count] = $2; unit[$2] = $3; title[$2] = $4 }
$1 == "subject" {
    number = ++subjects[$2]
    key[$2, number] = $3; kind[$2, number] = $4; goal[$2, number] = $5; label[$2, number] = $6
}
$1 == "sample" { value[$2, $3, ++count[$2, $3]] = $4 + 0 }

# Sorts the samples of a subject in place.
function sort(row, key,    n, i, j, v) {
    n = count[row, key]
    for (i = 2; i <= n; i++) {
        v = value[row, key, i]
        for (j = i - 1; j > 0 && value[row, key, j] > v; j--) value[row, key, j + 1] = value[row, key, j]
        value[row, key, j + 1] = v
    }
}
function at(row, key, share,    n) {
    n = int(share * (count[row, key] - 1) + 1.5)
    return value[row, key, n]
}
function median(row, key,    n) {
    n = count[row, key]
    return n % 2 ? value[row, key, (n + 1) / 2] : (value[row, key, n / 2] + value[row, key, n / 2 + 1]) / 2
}
# Returns the ratio of the best tenth of the samples to the best tenth of the floor's.
# Other programs on the machine change it less than the ratio of the medians.
function higher_is_better(row) { return unit[row] ~ /\/s$/ }
function best(row, key,    share) {
    share = higher_is_better(row) ? 0.9 : 0.1
    return at(row, "floor", share) > 0 ? at(row, key, share) / at(row, "floor", share) : ""
}
function low(row, key) { return at(row, key, count[row, key] < 10 ? 0 : 0.1) }
function high(row, key) { return at(row, key, count[row, key] < 10 ? 1 : 0.9) }
# Returns a number with three significant digits; from 1000 on as a whole number in
# groups.
function shown(v,    text, sign) {
    if (v == int(v) && v < 1000) return sprintf("%d", v)
    if (v < 1) return sprintf("%.3f", v)
    if (v < 10) return sprintf("%.2f", v)
    if (v < 1000) return sprintf("%.1f", v)
    text = sprintf("%d", v + 0.5)
    sign = ""
    while (length(text) > 3) {
        sign = "," substr(text, length(text) - 2) sign
        text = substr(text, 1, length(text) - 3)
    }
    return text sign
}
function as_ratio(v) { return v == "" ? "" : v < 100 ? sprintf("%.2f", v) : shown(int(v + 0.5)) }
function quoted(text) {
    gsub(/\\/, "\\\\", text)
    gsub(/"/, "\\\"", text)
    gsub(/[\001-\037]/, " ", text)
    return "\"" text "\""
}
# Returns the goal in the row's unit, or "" without a goal or without a floor.
function wanted(row, text,    parts) {
    if (split(text, parts, ":") < 2) return ""
    if (parts[2] !~ /x$/) return parts[2] + 0
    return count[row, "floor"] ? parts[2] * median(row, "floor") : ""
}
function is_met(text, got, limit) {
    return text ~ /^max/ ? got <= limit : got >= limit
}

END {
    for (r = 1; r <= row_count; r++)
        for (s = 1; s <= subjects[rows[r]]; s++) sort(rows[r], key[rows[r], s])
    print "{" >json
    for (f = 1; f <= fact_count; f++) {
        printf "%-16s %s\n", facts[f], fact[facts[f]]
        printf "  %s: %s,\n", quoted(facts[f]), quoted(fact[facts[f]]) >json
    }
    printf "packages        "
    printf "  \"packages\": {" >json
    for (p = 1; p <= package_count; p++) {
        printf "%s%s %s", (p % 4 == 1 && p > 1 ? ",\n                 " : p > 1 ? ", " : " "), packages[p], version[packages[p]]
        printf "%s%s: %s", (p > 1 ? ", " : ""), quoted(packages[p]), quoted(version[packages[p]]) >json
    }
    print ""
    printf "},\n  \"notes\": [" >json
    for (n = 1; n <= note_count; n++) {
        print "note             " notes[n]
        printf "%s%s", (n > 1 ? ", " : ""), quoted(notes[n]) >json
    }
    printf "],\n  \"rows\": [" >json
    for (r = 1; r <= row_count; r++) table(rows[r], r)
    printf "\n  ]\n}\n" >json
    print "| what | zigsvc | spread | floor | ratio (at best) | best peer | goal | |" >markdown
    print "| --- | --- | --- | --- | --- | --- | --- | --- |" >markdown
    for (r = 1; r <= row_count; r++) summary(rows[r])
    printf "\ngoals: %d met, %d missed\n", met, missed
    for (m = 1; m <= missed; m++) print "  missed: " misses[m]
}

function table(row, r,    s, k, got, limit, text, ratio, comma) {
    printf "\n%-60s %11s %23s %9s %7s  %s\n", title[row], unit[row], "spread", "to floor", "at best", "goal"
    printf "%s\n    {\"id\": %s, \"unit\": %s, \"title\": %s, \"subjects\": [", (r > 1 ? "," : ""),
        quoted(row), quoted(unit[row]), quoted(title[row]) >json
    comma = ""
    for (s = 1; s <= subjects[row]; s++) {
        k = key[row, s]
        if (!count[row, k]) {
            printf "  %-58s %11s\n", label[row, s], "-"
            continue
        }
        got = median(row, k)
        ratio = count[row, "floor"] && median(row, "floor") > 0 ? got / median(row, "floor") : ""
        printf "%s\n      {\"key\": %s, \"kind\": %s, \"label\": %s, \"samples\": %d, \"median\": %.6g, \"min\": %.6g, \"p10\": %.6g, \"p90\": %.6g, \"max\": %.6g",
            comma, quoted(k), quoted(kind[row, s]), quoted(label[row, s]), count[row, k], got,
            at(row, k, 0), at(row, k, 0.1), at(row, k, 0.9), at(row, k, 1) >json
        if (ratio != "") printf ", \"to_floor\": %.4g, \"to_floor_at_best\": %.4g", ratio, best(row, k) >json
        text = ""
        limit = wanted(row, goal[row, s])
        if (limit != "") {
            text = (goal[row, s] ~ /^max/ ? "<= " : ">= ") shown(limit) (limit > 0 ? sprintf(" (%.2f of it)", got / limit) : "")
            if (is_met(goal[row, s], got, limit)) { met++; text = text " met" }
            else { misses[++missed] = title[row] ": " label[row, s] ": " shown(got) " " unit[row] ", goal " text; text = text " MISSED" }
            printf ", \"goal\": {\"rule\": %s, \"value\": %.6g, \"met\": %s%s}", quoted(goal[row, s]), limit,
                (is_met(goal[row, s], got, limit) ? "true" : "false"),
                (limit > 0 ? sprintf(", \"of_goal\": %.4g", got / limit) : "") >json
        }
        printf "}" >json
        comma = ","
        printf "%s %-58s %11s %23s %9s %7s  %s\n", (kind[row, s] == "zigsvc" ? "*" : " "), label[row, s], shown(got),
            (count[row, k] > 1 ? shown(low(row, k)) ".." shown(high(row, k)) : ""), as_ratio(ratio), (ratio == "" || count[row, k] < 3 ? "" : as_ratio(best(row, k))), text
    }
    printf "\n    ]}" >json
}

function best_peer(row,    s, k, found) {
    for (s = 1; s <= subjects[row]; s++) {
        k = key[row, s]
        if (kind[row, s] != "peer" || !count[row, k]) continue
        if (!found || (higher_is_better(row) ? median(row, k) > median(row, key[row, found]) : median(row, k) < median(row, key[row, found]))) found = s
    }
    return found ? shown(median(row, key[row, found])) " (" label[row, found] ")" : "-"
}

function summary(row,    s, k, got, limit, text) {
    for (s = 1; s <= subjects[row]; s++) {
        k = key[row, s]
        limit = count[row, k] ? wanted(row, goal[row, s]) : ""
        if (limit == "") continue
        got = median(row, k)
        text = count[row, "floor"] && median(row, "floor") > 0 ? as_ratio(got / median(row, "floor")) : "-"
        if (text != "-" && count[row, k] > 2) text = text " (" as_ratio(best(row, k)) ")"
        printf "| %s: %s | %s %s | %s..%s | %s | %s | %s | %s %s | %s |\n", title[row], label[row, s], shown(got), unit[row],
            shown(low(row, k)), shown(high(row, k)), (count[row, "floor"] ? shown(median(row, "floor")) : "-"), text, best_peer(row),
            (goal[row, s] ~ /^max/ ? "<=" : ">="), shown(limit), (is_met(goal[row, s], got, limit) ? "met" : "missed") >markdown
    }
}
