
# The answers to the word that is typed: those of WORDS that begin with it.
_leafdisk_words() {
	COMPREPLY=($(compgen -W "$1" -- "$2"))
	[[ ${COMPREPLY-} != *= ]] || compopt -o nospace
}

_leafdisk_files() {
	local IFS=$'\n'

	compopt -o filenames
	COMPREPLY=($(compgen "$1" -- "$2"))
}

# ---- leafctl

# What the option or the value is that WORD stands for: an option's VALUE, or nothing.
_leafctl_value_of() {
	local option

	for option in ${_leafctl_options[$1]}; do
		[[ $option != "$2="* ]] || echo "${option#*=}"
	done
}

_leafctl_verb_words() {
	local verb

	for verb in "${!_leafctl_options[@]}"; do
		[[ -z $1 ]] && echo "${verb%% *}" || { [[ $verb != "$1 "* ]] || echo "${verb#* }"; }
	done | sort -u
}

_leafctl() {
	local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} verb=${COMP_WORDS[1]} words=1

	COMPREPLY=()
	if [[ $verb == help && $COMP_CWORD -eq 2 ]]; then
		_leafdisk_words "$(_leafctl_verb_words "")" "$word"
		return
	fi
	if [[ $COMP_CWORD -gt 1 && -n $(_leafctl_verb_words "$verb") ]]; then
		verb+=" ${COMP_WORDS[2]}" words=2
	fi
	if [[ $COMP_CWORD -le $words ]]; then
		_leafdisk_words "$(_leafctl_verb_words "${COMP_WORDS[COMP_CWORD - 1]#"${COMP_WORDS[0]}"}")" "$word"
		return
	fi
	# Readline takes --format=raw for three words.
	[[ $previous != = ]] || previous=${COMP_WORDS[COMP_CWORD - 2]}
	[[ $word != = ]] || word=
	case $(_leafctl_value_of "$verb" "$previous") in
	FORMAT) _leafdisk_words "$_leafctl_formats" "$word" ;;
	SIZE | NAME | NUMBER) ;;
	DIR* | POOL) _leafdisk_files -d "$word" ;;
	*)
		if [[ $verb == pause && $COMP_CWORD -eq 3 && $word != -* ]]; then
			_leafdisk_files -c "$word"
		elif [[ $verb == pause && $COMP_CWORD -gt 3 ]]; then
			_leafdisk_files -f "$word"
		elif [[ $word == -* ]]; then
			_leafdisk_words "$(sed -E 's/=[^ ]+/=/g; s/(^| )(-.)=/\1\2/g' <<<"${_leafctl_options[$verb]-}")" "$word"
		elif [[ $verb == mode && $COMP_CWORD -eq 3 ]]; then
			_leafdisk_words "$(_leafdisk_choices mode)" "$word"
		else
			_leafdisk_files -f "$word"
		fi
		;;
	esac
}

# ---- leafdisk

# The words that KEY takes, where there are such.
_leafdisk_choices() {
	local key

	for key in $_leafdisk_keys; do
		[[ $key != "$1="*'|'* ]] || tr '|' ' ' <<<"${key#*=}"
	done
}

# The last key of a list such as cache=/ssd/pool.cache,mode= or the value of one.
_leafdisk_option() {
	local word=$1 key=$2 before=

	if [[ $word == *,* || -z $key ]]; then
		before=${word%"${word##*,}"}
		_leafdisk_words "$(sed -E 's/=[^ ]+/=/g' <<<"$_leafdisk_keys")" "${word##*,}"
		compopt -o nospace
		COMPREPLY=("${COMPREPLY[@]/#/$before}")
	elif [[ -n $(_leafdisk_choices "$key") ]]; then
		_leafdisk_words "$(_leafdisk_choices "$key")" "$word"
	else
		_leafdisk_files -f "$word"
	fi
}

_leafdisk() {
	local word=${COMP_WORDS[COMP_CWORD]} key= first=$COMP_CWORD

	COMPREPLY=()
	[[ $word != = ]] || word= first=$((first - 1))
	# Readline takes mode=direct for three words.
	if [[ ${COMP_WORDS[COMP_CWORD]} == = ]]; then
		key=${COMP_WORDS[COMP_CWORD - 1]##*,} first=$((COMP_CWORD - 1))
	elif [[ ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
		key=${COMP_WORDS[COMP_CWORD - 2]##*,} first=$((COMP_CWORD - 2))
	fi
	while [[ $first -gt 2 && ${COMP_WORDS[first - 1]} == = ]]; do
		first=$((first - 2))
	done
	if [[ ${COMP_WORDS[first - 1]} == -o ]]; then
		_leafdisk_option "$word" "$key"
	elif [[ $word == -* ]]; then
		_leafdisk_words '-o -f -d --help --version' "$word"
	else
		_leafdisk_files -d "$word"
	fi
}

complete -F _leafctl leafctl
complete -F _leafdisk leafdisk
