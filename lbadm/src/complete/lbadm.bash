# bash completion for lbadm(8). lbadm itself knows what may come next.

_lbadm() {
    local line=${COMP_LINE:0:COMP_POINT} cur=${COMP_WORDS[COMP_CWORD]} candidates=() word whole head
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        candidates+=("$word")
    done < <("${COMP_WORDS[0]}" __complete "$line" 2>/dev/null)
    if [[ ${candidates[0]-} == :files ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
    fi
    # bash splits words at = and : too, and replaces only what is behind the last of them.
    whole=${line##*[[:space:]]}
    [[ $cur == [=:] ]] && cur=
    head=${whole%"$cur"}
    for word in "${candidates[@]}"; do
        COMPREPLY+=("${word#"$head"}")
    done
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}

complete -F _lbadm lbadm
