"""What is looked at after the download: is it the picture that was listed, and may it be used."""
