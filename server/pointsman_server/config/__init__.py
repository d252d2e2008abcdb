"""The settings: fields, types, rules between fields, environment, description."""
