//! The completion for bash.

use std::fmt::Write;
use zigsvc::cli::COMMANDS;
use zigsvc::cli::command_line::Command;
use zigsvc::proto::config::keys::{KEYS, KeyKind};
use zigsvc::proto::service::Service;

/// The part that does not change with the lists, up to the list of commands.
const HEAD: &str = r#"# Completion of zigsvc(8) for bash; written by tests/suite/packaging/manual from the lists of
# commands and keys: edit those.
# shellcheck shell=bash

# Sets COMPREPLY to the words that begin as $1 does.
_zigsvc_words() {
    local word
    for word in "${@:2}"; do
        [[ $word != "$1"* ]] || COMPREPLY+=("$word")
    done
}

# Sets COMPREPLY to files, folders (-d) or programs (-c) that begin as $2 does.
_zigsvc_files() {
    local path
    compopt -o filenames 2>/dev/null
    while IFS= read -r path; do
        COMPREPLY+=("$path")
    done < <(compgen "$1" -- "$2")
}

# The programs of the supervisor that begin as $2 does, by their files; $1 is the folder of -d.
_zigsvc_programs() {
    local folder=${1:-${ZIGSVC_DIR-}} file
    if [[ -n $folder ]]; then
        folder+=/programs
    elif ((EUID == 0)); then
        folder=/etc/zigsvc
    else
        folder=${XDG_STATE_HOME:-$HOME/.local/state}/zigsvc/programs
    fi
    for file in "$folder"/*.conf; do
        file=${file##*/}
        [[ $file == "*.conf" ]] || _zigsvc_words "$2" "${file%.conf}"
    done
}

# The values of the key $1 that begin as $2 does.
_zigsvc_values() {
    case $1 in
"#;

const MIDDLE: &str = r#"    esac
}

_zigsvc() {
    local commands=(
"#;

const OPTIONS: &str = r#"    )
    local word=${COMP_WORDS[COMP_CWORD]} before="" command="" value="" at=1 given=0
    local folder="" programs=0 options=() operands=()
    # The value of an option: "file", "folder" or "other".
    local -A values=()
    COMPREPLY=()

    # The words before the command. bash splits KEY=VALUE at its sign.
    while ((at <= COMP_CWORD)); do
        before=${COMP_WORDS[at]}
        [[ $before == -[cdo] ]] || break
        ((at < COMP_CWORD)) || break
        ((at += 1))
        [[ $before != -d ]] || folder=${COMP_WORDS[at]}
        if [[ $before == -o && ${COMP_WORDS[at + 1]} == "=" ]]; then
            ((at + 1 < COMP_CWORD)) || word=""
            if ((at + 2 >= COMP_CWORD)); then
                _zigsvc_values "${COMP_WORDS[at]}" "$word"
                return
            fi
            ((at += 2))
        elif ((at == COMP_CWORD)); then
            case $before in
            -c) _zigsvc_files -f "$word" ;;
            -d) _zigsvc_files -d "$word" ;;
            -o)
                compopt -o nospace 2>/dev/null
"#;

const LIST: &str = r#"                ;;
            esac
            return
        fi
        ((at += 1))
    done

    if ((at >= COMP_CWORD)); then
        [[ $word != -* ]] || commands=(-c -d -o)
        _zigsvc_words "$word" "${commands[@]}"
        return
    fi

    command=${COMP_WORDS[at]}
    case $command in
"#;

const TAIL: &str = r#"    *) return ;;
    esac

    # Counts the words that are no options; after -- is a program with its arguments.
    local index
    for ((index = at + 1; index < COMP_CWORD; index++)); do
        case ${COMP_WORDS[index]} in
        --)
            ((index + 1 < COMP_CWORD)) || _zigsvc_files -c "$word"
            _zigsvc_files -f "$word"
            return
            ;;
        -?*)
            value=${values[${COMP_WORDS[index]}]-}
            [[ -z $value ]] || ((index += 1))
            ;;
        *) ((given += 1)) ;;
        esac
    done

    # Whether the last option waits for its value here.
    ((index > COMP_CWORD)) || value=""
    case $value in
    file) _zigsvc_files -f "$word" ;;
    folder) _zigsvc_files -d "$word" ;;
    ?*) ;;
    *)
        if [[ $word == -* ]]; then
            _zigsvc_words "$word" "${options[@]}"
        elif [[ ${operands[*]} == file ]]; then
            _zigsvc_files -f "$word"
        elif ((given == 0)); then
            _zigsvc_words "$word" "${operands[@]}"
            ((programs == 0)) || _zigsvc_programs "$folder" "$word"
        elif [[ $given == 1 && $command == signal ]]; then
            # No other command takes a second word out of a list.
            _zigsvc_words "$word" HUP INT QUIT KILL USR1 USR2 TERM CONT STOP
        fi
        ;;
    esac
}

complete -F _zigsvc zigsvc
"#;

pub(crate) fn render() -> String {
    let mut script = HEAD.to_owned();
    for key in KEYS {
        let values = match key.kind {
            KeyKind::Choice(names) => names().iter().collect::<Vec<_>>().join(" "),
            KeyKind::Flag => "true false".to_owned(),
            KeyKind::Handler => "log shell".to_owned(),
            _ => continue,
        };
        let _ = writeln!(script, "    {}) _zigsvc_words \"$2\" {values} ;;", key.name);
    }
    script.push_str(MIDDLE);
    list(&mut script, "       ", "", COMMANDS.iter().map(|command| command.name.to_owned()));
    script.push_str(OPTIONS);
    list(
        &mut script,
        "                _zigsvc_words \"$word\"",
        " \\",
        KEYS.iter().map(|key| format!("{}=", key.name)),
    );
    script.push_str(LIST);
    COMMANDS.iter().for_each(|command| describe(&mut script, &command));
    script.push_str(TAIL);
    script
}

/// Writes these words after `head`, in lines that are not too long; `end` ends a line that
/// continues.
fn list(script: &mut String, head: &str, end: &str, words: impl Iterator<Item = String>) {
    let mut line = head.to_owned();
    for word in words {
        if line.len() + word.len() > 78 {
            let _ = writeln!(script, "{line}{end}");
            line = " ".repeat(head.len() - head.trim_start().len() + if end.is_empty() { 0 } else { 3 });
        }
        line.push(' ');
        line.push_str(&word);
    }
    let _ = writeln!(script, "{line}");
}

/// Writes the words that follow a command.
fn describe(script: &mut String, command: &Command) {
    let mut options: Vec<_> = command.options().filter(|(name, _)| Command::is_public(name)).collect();
    options.sort();
    let operands = operands(command);
    if options.is_empty() && operands.is_empty() {
        let _ = writeln!(script, "    {}) ;;", command.name);
        return;
    }
    let _ = writeln!(script, "    {})", command.name);
    if !options.is_empty() {
        let names: Vec<_> = options.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(script, "        options=({})", names.join(" "));
    }
    if operands.len() == COMMANDS.iter().count() {
        // They stand above already.
        script.push_str("        operands=(\"${commands[@]}\")\n");
    } else if !operands.is_empty() {
        // A word of the shell is quoted for shellcheck.
        let words: Vec<_> =
            operands.iter().map(|word| if word == "done" { "\"done\"" } else { word.as_str() }).collect();
        let _ = writeln!(script, "        operands=({})", words.join(" "));
    }
    if command.args.contains("SERVICE|NAME") {
        script.push_str("        programs=1\n");
    }
    let valued = options.iter().filter(|(_, value)| !value.is_empty());
    let values: Vec<_> = valued.map(|(name, value)| format!("[{name}]=\"{}\"", kind_of(value))).collect();
    if !values.is_empty() {
        let _ = writeln!(script, "        values=({})", values.join(" "));
    }
    script.push_str("        ;;\n");
}

/// Returns the kind of a value, from the word that stands for it in the list of options.
fn kind_of(value: &str) -> &'static str {
    match value {
        "FILE" | "PATH" => "file",
        "FOLDER" | "DIR" => "folder",
        _ => "other",
    }
}

/// Returns the words of a text about arguments.
fn words(text: &'static str) -> impl Iterator<Item = &'static str> {
    let apart = |letter: char| letter.is_whitespace() || "[]|".contains(letter);
    text.split(apart).filter(|word| !word.is_empty())
}

/// Returns the words that may follow a command, from the text about its arguments.
fn operands(command: &Command) -> Vec<String> {
    let mut operands = Vec::new();
    let mut after_option = false;
    for word in words(command.args) {
        let is_value = std::mem::replace(&mut after_option, false);
        match word {
            "SERVICE" => operands.extend(Service::ALL.iter().map(|service| service.name().to_owned())),
            "COMMAND" => operands.extend(COMMANDS.iter().map(|command| command.name.to_owned())),
            "FILE" | "PATH" if !is_value => operands = vec!["file".to_owned()],
            option if option.starts_with('-') => {
                after_option = command.options().any(|(name, value)| !value.is_empty() && name == option);
            }
            name if !is_value && name.chars().all(|letter| letter.is_ascii_lowercase()) => {
                operands.push(name.to_owned());
            }
            _ => {}
        }
    }
    operands
}
