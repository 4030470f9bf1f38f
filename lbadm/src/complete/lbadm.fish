# fish completion for lbadm(8). lbadm itself knows what may come next.

function __lbadm_complete
    set -l found (lbadm __complete (commandline -cp) 2>/dev/null)
    if test "$found[1]" = :files
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $found
    end
end

complete -c lbadm -f -a '(__lbadm_complete)'
