# Completion of zigsvc(8) for bash; written by tests/suite/packaging/manual from the lists of
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
    log_level) _zigsvc_words "$2" debug info warn error ;;
    log_time) _zigsvc_words "$2" iso unix none ;;
    syslog) _zigsvc_words "$2" true false ;;
    handler) _zigsvc_words "$2" log shell ;;
    take) _zigsvc_words "$2"  all ;;
    leftovers) _zigsvc_words "$2" end keep ;;
    sync) _zigsvc_words "$2" always never ;;
    watchdog_on_stop) _zigsvc_words "$2" disarm keep ;;
    esac
}

_zigsvc() {
    local commands=(
        start run stop restart reload rotate signal status queue wait list
        cancel retry forget hold resume drain watch chat metric log open check
        doctor limits help version
    )
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
                _zigsvc_words "$word" pid_file= socket= log_file= health_file= \
                    queue_file= spool= log_max= log_keep= log_level= log_time= \
                    syslog= interval= handler= take= workers= job_timeout= \
                    leftovers= retries= retry_delay= queue_max= dead_max= sync= \
                    stop_timeout= user= group= allow_uid= allow_gid= trust= \
                    supervise= check_interval= stale_after= failures= watchdog= \
                    watchdog_patience= watchdog_timeout= watchdog_on_stop= \
                    allow= metrics_name=
                ;;
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
    start)
        options=(--health)
        operands=(jobs hub opener collector supervisor)
        programs=1
        values=([--health]="file")
        ;;
    run)
        options=(--health --ready-fd)
        operands=(jobs hub opener collector supervisor)
        values=([--health]="file" [--ready-fd]="other")
        ;;
    stop)
        options=(--now)
        operands=(jobs hub opener collector supervisor)
        programs=1
        ;;
    restart)
        options=(--health)
        operands=(jobs hub opener collector supervisor)
        programs=1
        values=([--health]="file")
        ;;
    reload)
        operands=(jobs hub opener collector supervisor)
        programs=1
        ;;
    rotate)
        operands=(jobs hub opener collector supervisor)
        ;;
    signal)
        operands=(jobs hub opener collector supervisor)
        programs=1
        ;;
    status)
        options=(--all --json --prometheus)
        operands=(jobs hub opener collector supervisor)
        programs=1
        ;;
    queue)
        options=(--after --wait)
        values=([--after]="other")
        ;;
    wait) ;;
    list)
        options=(--json)
        operands=(waiting scheduled running dead "done")
        ;;
    cancel) ;;
    retry)
        operands=(dead)
        ;;
    forget)
        operands=(dead)
        ;;
    hold) ;;
    resume) ;;
    drain)
        options=(--wait)
        ;;
    watch)
        options=(--json)
        ;;
    chat) ;;
    metric)
        options=(--dump --prometheus)
        ;;
    log)
        options=(-n -p -s -t)
        operands=(file)
        values=([-n]="other" [-s]="other" [-t]="other")
        ;;
    open)
        operands=(file)
        ;;
    check) ;;
    doctor) ;;
    limits) ;;
    help)
        operands=("${commands[@]}")
        ;;
    version) ;;
    *) return ;;
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
