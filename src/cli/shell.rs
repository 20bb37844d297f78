//! `dip completions` and `dip man`: what shells and `man` know about this command.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::files::write_whole;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dip completions bash > ~/.local/share/bash-completion/completions/dip
  dip completions zsh > ~/.zfunc/_dip
  dip completions fish > ~/.config/fish/completions/dip.fish")]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dip", &mut text);
        print!("{}", String::from_utf8(text)?);
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dip man ~/.local/share/man/man1 && man dip-plan")]
pub struct Man {
    /// The folder to write dip.1, dip-plan.1 and so on to
    folder: PathBuf,
}

impl Man {
    pub fn run(&self) -> Result<ExitCode> {
        let folder = &self.folder;
        let shown = || format!("{}: cannot be made", folder.display());
        std::fs::create_dir_all(folder).with_context(shown)?;
        let mut all = Cli::command();
        all.build();
        self.write("dip", all.clone())?;
        for command in all.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = format!("dip-{}", command.get_name());
            self.write(&name, command.clone())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn write(&self, name: &str, command: clap::Command) -> Result<()> {
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(command).title(name);
        page.render(&mut text).context("a page cannot be made")?;
        write_whole(&self.folder.join(format!("{name}.1")), &text)
    }
}
