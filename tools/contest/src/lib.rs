//! The competition as data and arithmetic: what its judge does, what that is worth, and the best that anybody could have
//! made of it. Pure: nothing here runs, and only [`plan`] reads a file.
//!
//! Reading order: [`rules`] (numbers of the competition's own programs), [`plan`] and random ones from [`draw`],
//! named by a [`choice`], [`score`],
//! [`clairvoyant`]; and what they share, [`chance`] and [`by_processor`].

pub mod by_processor;
pub mod chance;
pub mod choice;
pub mod clairvoyant;
pub mod draw;
pub mod plan;
pub mod rules;
pub mod score;
