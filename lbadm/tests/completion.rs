//! The completion scripts in the shells that they are made for.

use std::path::Path;
use std::process::Command;

/// Sources the script that lbadm writes, types a line, and returns what bash would offer for the word at its end.
fn bash(line: &str) -> String {
    let lbadm = env!("CARGO_BIN_EXE_lbadm");
    let folder = Path::new(lbadm).parent().expect("a program is in a folder");
    // Words as readline splits them, by COMP_WORDBREAKS as bash has it.
    let script = r#"
        set -eu
        source <(lbadm completion bash)
        complete -p lbadm >/dev/null
        COMP_LINE=$1 COMP_POINT=${#1}
        COMP_WORDS=() word=
        for ((i = 0; i < ${#1}; i++)); do
            c=${1:i:1}
            case $c in
                ' ') if [[ $word ]]; then COMP_WORDS+=("$word"); fi; word= ;;
                [=:]) if [[ $word ]]; then COMP_WORDS+=("$word"); fi; COMP_WORDS+=("$c"); word= ;;
                *) word+=$c ;;
            esac
        done
        if [[ $word || ${1: -1} == ' ' ]]; then COMP_WORDS+=("$word"); fi
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        # Outside of readline compopt cannot do its work, and says so by its exit code.
        _lbadm || :
        printf '%s\n' "${COMPREPLY[@]+"${COMPREPLY[@]}"}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "--noprofile", "-c", script, "bash", line])
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .output()
        .expect("bash can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "given {line:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text.trim_end().to_string()
}

#[test]
fn bash_offers_what_replaces_the_end_of_the_line() {
    for (line, offered) in [
        ("lbadm create-r", "create-rule"),
        ("lbadm delete-s", "delete-servergroup"),
        ("lbadm create-rule -i vi", "vip="),
        ("lbadm create-rule -i vip=192.0.2.80,po", "192.0.2.80,port="),
        (
            "lbadm create-rule -m lbalg=",
            "roundrobin\nwrr\nlc\nwlc\nlblc\nlblcr\ndh\nsh\nsed\nnq\nfo\novf\nmh\ntwos\nhash-ip\nhash-ip-port\nhash-ip-vip",
        ),
        ("lbadm create-rule -m lbalg=rr,type=HALF", "HALF-NAT"),
        (
            "lbadm create-rule -i vip=[2001:db8::1],prot",
            "1],protocol=",
        ),
        ("lbadm show-rule -o rulename,st", "rulename,status"),
        ("lbadm explain se", "server"),
        // Without a manager there are no names, and no noise either.
        ("lbadm delete-rule w", ""),
        ("lbadm nosuch w", ""),
    ] {
        assert_eq!(bash(line), offered, "given {line:?}");
    }
}

#[test]
fn the_scripts_are_understood_by_their_shells() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(env!("CARGO_BIN_EXE_lbadm"))
            .args(["completion", shell])
            .output()
            .expect("lbadm can be run");
        assert!(output.status.success());
        let file = std::env::temp_dir().join(format!("lbadm-{}.{shell}", std::process::id()));
        std::fs::write(&file, &output.stdout).expect("the temporary folder can be written");
        let checked = Command::new(shell)
            .arg(if shell == "fish" {
                "--no-execute"
            } else {
                "-n"
            })
            .arg(&file)
            .output();
        std::fs::remove_file(&file).expect("it was written");
        let checked = checked.unwrap_or_else(|error| panic!("{shell} cannot be run: {error}"));
        assert!(
            checked.status.success() && checked.stderr.is_empty(),
            "{shell}: {}",
            String::from_utf8_lossy(&checked.stderr)
        );
    }
}
