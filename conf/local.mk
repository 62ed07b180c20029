# conf/

# bash-completion looks for COMMAND.bash too.
bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = conf/completion/virt-dr.bash
