"""What people see, one file a page. Each `build_*` is called inside its Gradio page and draws it."""
