#compdef lbadm
# zsh completion for lbadm(8). lbadm itself knows what may come next.

_lbadm() {
    local word about
    local -a finished open
    while IFS=$'\t' read -r word about; do
        if [[ $word == :files ]]; then
            _files
            return
        fi
        if [[ $word == *= ]]; then
            open+=("$word")
        else
            finished+=("$word")
        fi
    done < <("${words[1]}" __complete "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)
    (( $#finished )) && compadd -a finished
    (( $#open )) && compadd -S '' -a open
}

if [[ $funcstack[1] == _lbadm ]]; then
    _lbadm "$@"
else
    compdef _lbadm lbadm
fi
