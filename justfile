# What a developer does often. Each recipe is a command or two, so all of it works without just as well.

# Lists the recipes
default:
    @just --list

# Form and lints: a minute
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Unit tests only: under a minute once they are built
test:
    cargo test --workspace --locked --lib --bins

# The product's contract over real sockets: two minutes
e2e *ARGS:
    cargo test --package e2e --locked -- {{ARGS}}

# One seed of the simulation, event by event
sim SEED:
    cargo sim money --tell {{SEED}}

# Fuzzes a decoder: frames, log_recovery, edge or payment
fuzz TARGET SECONDS="60":
    scripts/fuzz {{TARGET}} {{SECONDS}}

# A measurement: floor, preview, lb, stack, stalls, store
measure WHAT *ARGS:
    cargo measure {{WHAT}} {{ARGS}}

# A flame graph of lb, api1, api2 or store under load, in target/profile
flamegraph PROCESS:
    cargo measure profile --out target/profile
    @echo "target/profile/{{PROCESS}}.svg"

# Everything on this machine, until Ctrl-C
up *ARGS:
    cargo arena up {{ARGS}}

# Everything that must hold on main
ci:
    bash .ci/run
