(percent) => { document.documentElement.style.setProperty('--tfgad-heat', percent / 100) }
