"""What each shell is told to do for completion, and `arborfs completion`, which prints it.

All shells hand over the line as it was typed up to the cursor, and get an answer of lines: a kind, a comma, a value, and
where there is one, a tab and what it means. Of the kinds `plain` is a word, `file` and `dir` leave it to the shell, and
`nospace` says that the words go on.
"""

from __future__ import annotations

import os
import re

import click
from click.shell_completion import (
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

PROGRAM = "arborfs"
VARIABLE = "_ARBORFS_COMPLETE"

_BASH = """\
%(complete_func)s() {
    local IFS=' ' line=${COMP_LINE:0:COMP_POINT} answer
    [[ -n $line ]] || line=${COMP_WORDS[*]:0:COMP_CWORD+1}
    COMPREPLY=()
    while IFS= read -r answer; do
        case $answer in
            plain,*) COMPREPLY+=("${answer#*,}") ;;
            file,*) compopt -o default 2>/dev/null ;;
            dir,*) compopt -o dirnames 2>/dev/null ;;
            nospace,*) compopt -o nospace 2>/dev/null ;;
        esac
    done < <(COMP_LINE=$line COMP_WORD=${COMP_WORDS[COMP_CWORD]} %(complete_var)s=bash_complete "${1/#\\~/$HOME}" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local answer value
    local -a values shown how files
    while IFS= read -r answer; do
        value=${answer#*,}
        case $answer in
            plain,*$'\\t'*) how+=(-l) ;|
            plain,*) values+=("${value%%%%$'\\t'*}") shown+=("${value/$'\\t'/  -- }") ;;
            file,*) files=(-f) ;;
            dir,*) files=(-/) ;;
            nospace,*) how+=(-S '') ;;
        esac
    done < <(COMP_LINE="${words[1,CURRENT-1]} $QIPREFIX$PREFIX" %(complete_var)s=zsh_complete ${~words[1]} 2>/dev/null)
    (( $#files )) && _path_files $files
    compadd -U -V %(prog_name)s -d shown "${how[@]}" -a values
}

if [[ $funcstack[1] == _%(prog_name)s ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = """\
function %(complete_func)s
    set -l line (commandline -cp | string collect)
    COMP_LINE=$line %(complete_var)s=fish_complete %(prog_name)s 2>/dev/null | while read -l answer
        set -l parts (string split -m 1 , -- $answer)
        switch $parts[1]
            case plain
                printf '%%s\\n' $parts[2]
            case file
                __fish_complete_path $parts[2]
            case dir
                __fish_complete_directories $parts[2]
        end
    end
end

complete --no-files --keep-order --command %(prog_name)s --arguments '(%(complete_func)s)'
"""

_SPECIAL = re.compile(r"""([\s\\'"$`&|;<>()*?\[\]!#{}])""")


class _Shell(ShellComplete):
    """A shell that hands over the line, and takes whole words."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words of the line up to the cursor, and the one that is being typed."""
        # Something to end the last word with: it may be empty, or end in a blank that is quoted.
        *words, last = split_arg_string(os.environ.get("COMP_LINE", "") + ".")
        return [os.path.expanduser(word) for word in words[1:]], last[:-1]

    def format_completion(self, item: CompletionItem) -> str:
        """One line of the answer."""
        _, word = self.get_completion_args()
        option, joined, _ = word.partition("=")
        value = f"{option}={item.value}" if joined and word.startswith("-") and item.type == "plain" else item.value
        return f"{item.type},{value}" + (f"\t{item.help}" if item.help else "")


class _Zsh(_Shell):
    name = "zsh"
    source_template = _ZSH


class _Fish(_Shell):
    name = "fish"
    source_template = _FISH


class _Bash(_Shell):
    """Completion in bash that keeps a word together which bash takes apart, as `main:images`, and quotes what must be."""

    name = "bash"
    source_template = _BASH

    def format_completion(self, item: CompletionItem) -> str:
        """One line of the answer: what replaces the part of the word that bash itself takes for the word."""
        if item.type != "plain":
            return f"{item.type},{item.value}"
        _, word = self.get_completion_args()
        typed = os.environ.get("COMP_WORD", "")
        value = str(item.value)
        if ":" in word and (typed == ":" or ":" not in typed):
            value = value[word.rindex(":") + 1 :]
        return "plain," + (value if typed.startswith(('"', "'")) else _SPECIAL.sub(r"\\\1", value))


for _shell in (_Bash, _Zsh, _Fish):
    add_completion_class(_shell)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes what is typed in SHELL. Commands, options, branches, tags, revisions, paths,
    datasets and samples are completed.

    Put the first line below into ~/.bashrc; for zsh the same with zsh into ~/.zshrc, below compinit; for fish, write the
    script to ~/.config/fish/completions/arborfs.fish.

    \b
    Example:
      eval "$(arborfs completion bash)"
      arborfs completion fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(context.find_root().command, {}, PROGRAM, VARIABLE).source())
