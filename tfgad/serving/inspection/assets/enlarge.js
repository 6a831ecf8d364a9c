/* The click handler of a picture: shows it at full size in a dialog, with the clicked point in the
   middle, until it is clicked again or Escape is pressed. `this` is the picture. */
const box = this.getBoundingClientRect();
const picture = this.cloneNode(true);
const dialog = document.createElement('dialog');
dialog.className = 'tfgad tfgad-full';
picture.removeAttribute('onclick');
dialog.append(picture);
dialog.onclick = dialog.onclose = () => dialog.remove();
this.closest('.gradio-container').append(dialog);
dialog.showModal();
const x = (event.clientX - box.left) / box.width;
const y = (event.clientY - box.top) / box.height;
dialog.scrollLeft = x * dialog.scrollWidth - dialog.clientWidth / 2;
dialog.scrollTop = y * dialog.scrollHeight - dialog.clientHeight / 2;
