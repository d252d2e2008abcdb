"""What comes from outside, in every form that nobody sends on purpose: ``harness`` says how, ``targets`` what."""
