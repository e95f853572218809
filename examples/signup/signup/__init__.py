"""A web application that sends mails to those who sign up."""
