//! The command line of arena: which commands there are. Each command's flags live with the command.
//!
//! Every flag that a deployment may want to set has a variable too. What cargo tells the programs that it runs is read
//! as two hidden flags ([`crate::checkout`]). The children of a stack get flags of their own, made in `stack`, and arena's
//! variables as they are, so that a setting of theirs that arena does not know can still be made from outside.
//!
//! The exit statuses of a fight are part of the help, because scripts depend on them.

use crate::chaos::args::ChaosArgs;
use crate::fight::FightArgs;
use crate::hostile::HostileArgs;
use crate::processor::ProcessorsArgs;
use crate::up::UpArgs;
use clap::{Parser, Subcommand};
use wire::trace::LogFlags;

const EXIT_CODES: &str = "\
Exit status of a fight:
  0    every accepted payment is settled once, the sums agree, no audit differed, and the lag is 0
  1    arena could not do what it was asked
  2    the command line is wrong
  3    money: a payment was lost, doubled, invented or altered, or the sums at the end differ
  4    an audit differed, or the lag is not 0
  130  stopped by a signal";

const CHAOS_EXIT_CODES: &str = "\
Exit status:
  0    nothing was lost, doubled, invented or altered, and the sums agree on all sides
  1    arena could not do what it was asked
  2    the command line is wrong
  3    money: a payment is other than it should be, the sums differ, the system did not come to rest, or a process failed
  4    a summary came late while nothing was stopped, or was neither 200 nor 503
  130  stopped by a signal";

const HOSTILE_EXIT_CODES: &str = "\
Exit status:
  0    no process ended and every other client got its answer
  1    arena could not do what it was asked
  2    the command line is wrong
  3    a process ended, or another client did not get its answer
  130  stopped by a signal";

/// Starts Espora, plays the processors and the judge, and measures.
#[derive(Clone, Debug, Parser)]
#[command(name = "arena", version, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How arena and its children log.
    #[command(flatten)]
    pub log: LogFlags,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Play the payment processors of the competition
    Processors(ProcessorsArgs),
    /// Start everything on this machine and keep it running until Ctrl-C
    Up(Box<UpArgs>),
    /// Play the judge and print the score
    #[command(after_help = EXIT_CODES)]
    Fight(Box<FightArgs>),
    /// Kill, stop and break everything under load, and compare what all sides know
    #[command(after_help = CHAOS_EXIT_CODES)]
    Chaos(Box<ChaosArgs>),
    /// Let clients hold all the bytes that they can make every process hold, beside others that pay
    #[command(after_help = HOSTILE_EXIT_CODES)]
    Hostile(Box<HostileArgs>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Role;
    use clap::CommandFactory;
    use contest::choice::Choice;

    fn fight(flags: &[&str]) -> Result<FightArgs, clap::Error> {
        let arguments = Arguments::try_parse_from([&["arena", "fight"], flags].concat())?;
        let Command::Fight(fight) = arguments.command else { panic!("a fight was asked for") };
        Ok(*fight)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_fight_names_its_plan_and_starts_its_own_stack() {
        let args = fight(&["preview"]).unwrap();
        assert_eq!((args.plan, args.target, args.stack.port), (Choice::Preview, None, 9999));
        assert!(fight(&[]).is_err());
    }

    #[test]
    fn kills_are_sorted_and_need_a_stack_of_ones_own() {
        let flags = ["preview", "--kill-lb-at", "7.5", "--kill-store-at", "20", "--kill-store-at", "3"];
        let kills = fight(&flags).unwrap().kills().unwrap();
        let seen: Vec<(Role, u128)> = kills.iter().map(|kill| (kill.role, kill.at.as_millis())).collect();
        assert_eq!(seen, [(Role::Store, 3_000), (Role::Lb, 7_500), (Role::Store, 20_000)]);
        assert!(fight(&["preview", "--kill-store-at=-1"]).unwrap().kills().is_err());
        assert!(fight(&["preview", "--target", "http://h:1", "--kill-store-at", "3"]).is_err());
    }

    #[test]
    fn processors_are_named_together_with_the_target_only() {
        assert!(fight(&["final", "--processor-default", "http://h:1"]).is_err());
        let args = fight(&["final", "--target", "http://h:1", "--processor-default", "http://h:2"]).unwrap();
        assert_eq!(args.processor_default.to_string(), "http://h:2");
        assert_eq!(args.processor_fallback.to_string(), "http://localhost:8002");
    }
}
