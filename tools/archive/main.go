// Command archive packs a directory so that the same files always give the same bytes:
// sorted, owned by root, with one modification time. The file name selects the format.
package main

import (
	"archive/tar"
	"archive/zip"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: archive NAME.tar.gz|NAME.zip DIRECTORY SECONDS-SINCE-1970")
		os.Exit(2)
	}
	if err := pack(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "archive:", err)
		os.Exit(1)
	}
}

// pack writes folder, under its own name, into the archive name.
func pack(name, folder, epoch string) (err error) {
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return err
	}
	modified := time.Unix(seconds, 0).UTC()
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if strings.HasSuffix(name, ".zip") {
		return packZip(file, folder, modified)
	}
	return packTar(file, folder, modified)
}

// each calls f for the files and directories in folder, in the order of their names.
func each(folder string, f func(path, name string, info fs.FileInfo) error) error {
	return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return fmt.Errorf("%s is neither a file nor a directory", path)
		}
		inside, err := filepath.Rel(filepath.Dir(folder), path)
		if err != nil {
			return err
		}
		return f(path, filepath.ToSlash(inside), info)
	})
}

// mode returns the mode of info, independent of the umask of the build.
func mode(info fs.FileInfo) fs.FileMode {
	if info.IsDir() || info.Mode()&0o100 != 0 {
		return 0o755
	}
	return 0o644
}

func packTar(w io.Writer, folder string, modified time.Time) error {
	zipped, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	out := tar.NewWriter(zipped)
	err = each(folder, func(path, name string, info fs.FileInfo) error {
		header := &tar.Header{Name: name, Mode: int64(mode(info)), ModTime: modified, Typeflag: tar.TypeReg, Size: info.Size()}
		if info.IsDir() {
			header.Name, header.Typeflag, header.Size = name+"/", tar.TypeDir, 0
		}
		if err := out.WriteHeader(header); err != nil || info.IsDir() {
			return err
		}
		return copyFile(out, path)
	})
	return errors.Join(err, out.Close(), zipped.Close())
}

func packZip(w io.Writer, folder string, modified time.Time) error {
	out := zip.NewWriter(w)
	out.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) {
		return flate.NewWriter(w, flate.BestCompression)
	})
	err := each(folder, func(path, name string, info fs.FileInfo) error {
		if info.IsDir() {
			return nil
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: modified}
		header.SetMode(mode(info))
		entry, err := out.CreateHeader(header)
		if err != nil {
			return err
		}
		return copyFile(entry, path)
	})
	return errors.Join(err, out.Close())
}

func copyFile(w io.Writer, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(w, file)
	return err
}
