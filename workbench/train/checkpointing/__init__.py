"""What keeps a run whole: checkpoints, exact resumes, guards against full disks, broken numbers and too little memory."""
