# bash completion for mailslot, made from the table of options; UPDATE_DOCS=1 cargo test docs
_mailslot() {
    local word=${COMP_WORDS[COMP_CWORD]}
    case ${COMP_WORDS[COMP_CWORD-1]} in
        -l|--listen) COMPREPLY=(); return ;;
        --hostname) COMPREPLY=(); return ;;
        -d|--domain) COMPREPLY=(); return ;;
        -m|--maildir) COMPREPLY=(); return ;;
        -u|--users) COMPREPLY=($(compgen -f -- "$word")); return ;;
        -a|--aliases) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --recipient-delimiter) COMPREPLY=(); return ;;
        --quota) COMPREPLY=(); return ;;
        --max-size) COMPREPLY=(); return ;;
        --max-recipients) COMPREPLY=(); return ;;
        --max-connections) COMPREPLY=(); return ;;
        --max-per-client) COMPREPLY=(); return ;;
        --max-rate) COMPREPLY=(); return ;;
        --greylist) COMPREPLY=(); return ;;
        --max-errors) COMPREPLY=(); return ;;
        --timeout) COMPREPLY=(); return ;;
        --tls-cert) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --tls-key) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --oauth) COMPREPLY=(); return ;;
        --sync) COMPREPLY=($(compgen -W 'full none' -- "$word")); return ;;
        --bare-newline) COMPREPLY=($(compgen -W 'reject normalize' -- "$word")); return ;;
        --junk) COMPREPLY=(); return ;;
        --trust) COMPREPLY=(); return ;;
        --run-as) COMPREPLY=(); return ;;
        --chroot) COMPREPLY=($(compgen -d -- "$word")); return ;;
        --config) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --healthcheck) COMPREPLY=(); return ;;
        --relay) COMPREPLY=(); return ;;
        --relay-from) COMPREPLY=(); return ;;
        --relay-auth) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --tls-ca) COMPREPLY=($(compgen -f -- "$word")); return ;;
        --queue) COMPREPLY=($(compgen -d -- "$word")); return ;;
        --retry) COMPREPLY=(); return ;;
        --retry-for) COMPREPLY=(); return ;;
        --queue-run) COMPREPLY=(); return ;;
    esac
    COMPREPLY=($(compgen -W '-l --listen --hostname -d --domain -m --maildir --create -u --users -a --aliases --recipient-delimiter --quota --max-size --max-recipients --max-connections --max-per-client --max-rate --greylist --max-errors --timeout --tls-cert --tls-key --require-tls --insecure-auth --oauth --auth-sender --auth-header --vrfy --expn --sync --bare-newline --bare-address --junk --trust --run-as --chroot --config --check --hash-password --healthcheck --sendmail --relay --relay-from --relay-auth --tls-ca --queue --retry --retry-for --queue-list --queue-run -v --verbose -q --quiet --help --version' -- "$word"))
}
complete -F _mailslot mailslot
