"""The Theory page: closed forms beside what training measured."""
